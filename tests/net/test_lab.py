"""The network lab itself: boxes apart from each other, links that delay, drop and break, and nothing left behind."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import link as links
import namespaces
import pytest
from box_kit import lives
from lab import Lab
from link import FAR, GIGABIT, NetemWire, Shape, TunWire
from namespaces import SPACES, LabError
from probe import CONTROL, ECHO, arrived, probed, round_trips
from selfcheck import cut_and_healed, figures

pytestmark = [pytest.mark.timeout(120)]
SCRIPTS = Path(namespaces.__file__).parent


def spaces(name: str) -> list[str]:
    return sorted(path.name for path in SPACES.glob(f"{name}-*"))


def eventually(what) -> bool:
    deadline = time.monotonic() + 5
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return what()


# ---------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize(("shape", "size"), [(GIGABIT, 30 << 20), (FAR, 3 << 20)], ids=["near", "far"])
def test_a_link_has_the_delay_the_rate_and_the_loss_it_was_given(shape: Shape, size: int, lab: Lab) -> None:
    with lab.enter_host():
        wrong = [figure.line() for figure in figures(lab.boxes[0], shape, "link", size) if not figure.right]
    assert not wrong, lab.about


@pytest.mark.parametrize("wire", [TunWire, NetemWire])
def test_a_cut_link_is_silent_and_an_open_connection_goes_on_when_it_is_healed(wire, permitted, monkeypatch) -> None:
    if wire is not links.way():
        # The rest of that way of making links is tried all the same.
        monkeypatch.setattr("link.netem", links.tbf)
    monkeypatch.setattr("lab.way", lambda: wire)
    with Lab(boxes=1) as lab, lab.enter_host():
        assert not [figure.line() for figure in cut_and_healed(lab.boxes[0]) if not figure.right]


def test_a_link_can_be_cut_in_one_direction_alone(lab: Lab) -> None:
    box = lab.boxes[0]
    with probed(box) as address, lab.enter_host():
        box.link.cut("host")
        assert not round_trips(address, 1)
        box.link.heal()
        # The far side heard what it could not answer.
        assert arrived(address, 5, 1e6)[0] == 5
        box.link.cut("box")
        assert not round_trips(address, 1)


def test_one_link_that_is_cut_leaves_the_others_alone(lab: Lab) -> None:
    one, other = lab.boxes
    with probed(one) as first, probed(other) as second, lab.enter_host():
        one.link.cut()
        assert len(round_trips(second, 3)) == 3
        assert not round_trips(first, 1)


def test_the_same_seed_loses_the_same_packets(lab: Lab) -> None:
    if links.way() is not TunWire:
        pytest.skip("netem throws its own dice")
    box = lab.boxes[0]
    with probed(box) as address, lab.enter_host():
        heard = []
        for seed in (7, 8, 7):
            box.link.become(Shape(loss=0.1, seed=seed))
            heard.append(numbers_that_came_back(address, 200))
    assert heard[0] == heard[2]
    assert heard[0] != heard[1]
    assert 120 < len(heard[0]) < 195


def numbers_that_came_back(address: str, count: int) -> set[int]:
    heard = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.settimeout(0.5)
        for number in range(count):
            near.sendto(number.to_bytes(4, "big"), (address, ECHO))
        try:
            while True:
                heard.add(int.from_bytes(near.recv(16), "big"))
        except TimeoutError:
            return heard


def test_netem_is_told_all_that_a_link_should_do() -> None:
    # What is under way in a round trip of 80 ms at 100 Mbit/s is less than 1,000 packets; half of it is in the air.
    assert links.netem(FAR) == [
        "netem", "limit", "1333", "delay", "40000us", "loss", "1.0000%", "rate", "100000000bit",
    ]  # fmt: skip
    assert "rate" not in links.netem(Shape(delay=0.001))


def test_a_slow_link_far_away_queues_what_is_under_way() -> None:
    assert Shape(rate=1e9, delay=0.1).queue_bytes == 25_000_000
    assert links.tbf(GIGABIT) == ["tbf", "rate", "1000000000bit", "burst", "125000b", "limit", "1500000b"]


# ---------------------------------------------------------------------------------------------- boxes


def test_a_box_reaches_the_host_and_nobody_else(lab: Lab) -> None:
    one, other = lab.boxes
    routes = namespaces.command("ip", "-n", one.space, "route")
    assert "default" not in routes
    assert routes.split()[0] == "10.87.1.0/24"
    with one.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", (one.host_address, 9))
        with pytest.raises(OSError, match="unreachable"):
            sock.sendto(b"hello", (other.address, 9))


def test_a_process_runs_inside_its_box_and_is_known_there(lab: Lab) -> None:
    one, other = lab.boxes
    with one.popen(["sleep", 60]) as process:
        assert eventually(lambda: one.pids() == [process.pid])
        assert other.pids() == []
        assert lab.host.pids() == []
        process.kill()


def test_a_thread_comes_back_from_the_host_side_after_an_error(lab: Lab) -> None:
    home = network()
    with contextlib.suppress(RuntimeError), lab.enter_host():
        assert network() != home
        raise RuntimeError
    assert network() == home


def network() -> Path:
    return Path("/proc/thread-self/ns/net").readlink()


def test_the_control_of_congestion_can_be_chosen(permitted) -> None:
    with Lab(boxes=1, congestion="reno") as lab:
        assert lab.about.endswith("TCP: reno")
        assert namespaces.sysctl(lab.boxes[0].space, "ipv4/tcp_congestion_control") == "reno"


# ---------------------------------------------------------------------------------------------- capture


def test_a_capture_is_a_pcap_file_with_every_packet_of_every_link(lab: Lab, tmp_path: Path) -> None:
    path, secret = tmp_path / "wire.pcap", b"not to be read"
    one, other = lab.boxes
    with probed(one) as first, probed(other) as second, lab.enter_host():
        with lab.capture(path) as capture:
            for address in (first, second):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
                    near.settimeout(5)
                    near.sendto(secret, (address, ECHO))
                    near.recv(64)
        assert capture.dropped == 0
    packets = read_pcap(path)
    assert len(packets) == capture.packets == 4
    assert all(secret in packet for packet in packets)
    assert {packet[12:20] for packet in packets} >= {
        socket.inet_aton(box.host_address) + socket.inet_aton(box.address) for box in lab.boxes
    }


def test_a_capture_ends_while_packets_still_pass(lab: Lab, tmp_path: Path) -> None:
    with probed(lab.boxes[0]) as address, lab.enter_host(), socket.create_connection((address, CONTROL)) as near:
        with lab.capture(tmp_path / "wire.pcap") as capture:
            near.sendall(b"fill 2000000000\n")
            time.sleep(0.3)
            near.recv(1 << 20, socket.MSG_WAITALL)
        assert capture.packets > 10
    assert len(read_pcap(tmp_path / "wire.pcap")) == capture.packets


def read_pcap(path: Path) -> list[bytes]:
    """The raw IP packets of a file, each with the length that its own header gives."""
    data = path.read_bytes()
    magic, major, minor, _, _, longest, link_type = struct.unpack("<IHHiIII", data[:24])
    assert (magic, major, minor, link_type) == (0xA1B23C4D, 2, 4, 101)
    packets, at, last = [], 24, (0, 0)
    while at < len(data):
        seconds, nanoseconds, held, whole = struct.unpack("<IIII", data[at : at + 16])
        packet = data[at + 16 : at + 16 + held]
        assert last <= (seconds, nanoseconds)
        assert nanoseconds < 1_000_000_000
        assert held == whole == len(packet) == int.from_bytes(packet[2:4], "big") <= longest
        packets.append(packet)
        at, last = at + 16 + held, (seconds, nanoseconds)
    return packets


# ---------------------------------------------------------------------------------------------- ends


def test_nothing_is_left_of_a_lab_even_after_an_error_and_what_ran_detached_inside_ends(permitted) -> None:
    with contextlib.suppress(RuntimeError), Lab(boxes=2) as lab:
        assert len(spaces(lab.name)) == 3
        process = lab.boxes[1].popen(["sh", "-c", "setsid sleep 60 & setsid sleep 60"], start_new_session=True)
        assert eventually(lambda: len(lab.boxes[1].pids()) == 3)
        pids = lab.boxes[1].pids()
        raise RuntimeError
    assert process.wait(5) == -signal.SIGKILL
    assert spaces(lab.name) == []
    assert eventually(lambda: not any(lives(pid) for pid in pids))


def test_a_lab_that_cannot_be_made_whole_is_taken_away_again(permitted) -> None:
    unfinished = Lab(boxes=1, congestion="no-such-control")
    with pytest.raises((LabError, OSError)), unfinished:
        pass
    assert spaces(unfinished.name) == []


def test_what_a_killed_run_left_is_swept_up_by_the_next_and_a_living_one_is_not(lab: Lab) -> None:
    program = (
        f"import sys, time; sys.path.insert(0, {str(SCRIPTS)!r}); from lab import Lab\n"
        "with Lab(boxes=1) as lab:\n"
        "    lab.boxes[0].popen(['sleep', '60'], start_new_session=True)\n"
        "    print(lab.name, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        name = run.stdout.readline().strip()
        assert eventually(lambda: len(namespaces.inhabitants(f"{name}-1")) == 1)
        (sleeper,) = namespaces.inhabitants(f"{name}-1")
        run.kill()
    assert len(spaces(name)) == 2
    with Lab(boxes=1):
        assert spaces(name) == []
        assert eventually(lambda: not lives(sleeper))
        assert len(spaces(lab.name)) == 3
    assert not (namespaces.LOCKS / name).exists()
