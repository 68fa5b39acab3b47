"""A worker that serves a network: who may enter, who is shown out, what a stranger can take from the others."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import zmq

from upx_protocol import door
from upx_protocol.allowlist import Allowlist, parse_allowed
from upx_protocol.curve import CurveKeys, key_text
from upx_protocol.descriptors import NOWHERE
from upx_protocol.door import MAX_OFFENCES, PENANCE_S
from upx_protocol.messages import Bye, Credit, Drain, Drained, Echo, Echoed, Ping, Pong, Ready, Reject
from upx_protocol.testing import FakeHost
from upx_protocol.version import NEWEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import RunningWorker


def pair() -> Any:
    """(public, secret) in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


class Box:
    """A serving worker with its keys, and the list of those that may enter."""

    def __init__(self, start: Callable[..., RunningWorker], folder: Path) -> None:
        self.server, self.owner, self.client, self.other = pair(), pair(), pair(), pair()
        self.allowed, entry, keys = folder / "allowed", folder / "entry.json", folder / "keys.json"
        keys.write_text(
            json.dumps(
                {"server_public": self.server[0], "server_secret": self.server[1], "client_public": self.owner[0]}
            )
        )
        self.allow(laptop=self.client, other=self.other)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.worker = start(
            endpoint=self.address,
            listen_fd=self.listener.fileno(),
            curve_keys=str(keys),
            allowed=str(self.allowed),
            entry=str(entry),
            box="attic",
            ports=(7001, 7002),
            models=("toy-x2",),
            tied=False,
            pass_fds=(self.listener.fileno(),),
        )

    def allow(self, **clients: Any) -> None:
        beside = self.allowed.with_suffix(".part")
        beside.write_text("".join(f"{name} {key_text(keys[0])}\n" for name, keys in clients.items()))
        beside.replace(self.allowed)

    def host(self, keys: Any, timeout: float = 5.0) -> FakeHost:
        return FakeHost(self.address, timeout=timeout, curve=(self.server[0], *keys))

    @contextmanager
    def serving_another(self) -> Iterator[None]:
        """The other client has a session meanwhile, and is served at its end."""
        with self.host(self.other) as served:
            served.hello()
            yield
            served.send(Ping(3))
            assert served.expect(Pong).nonce == 3


@pytest.fixture
def box(start: Callable[..., RunningWorker], tmp_path: Path) -> Iterator[Box]:
    box = Box(start, tmp_path)
    yield box
    box.listener.close()


def test_those_of_the_list_and_the_own_machine_enter_and_nobody_else(box: Box) -> None:
    for keys in (box.client, box.owner):
        with box.host(keys) as host:
            welcome = host.hello()
            assert (welcome.box, welcome.ports) == ("attic", (7001, 7002))
            assert host.expect(Ready).models == ("toy-x2",)
    with box.host(pair(), timeout=1.0) as stranger, pytest.raises(TimeoutError):
        stranger.hello()


def test_a_key_that_is_allowed_later_enters_without_a_restart(box: Box) -> None:
    late = pair()
    box.allow(laptop=box.client, late=late)
    time.sleep(0.8)
    with box.host(late) as host:
        assert host.hello().protocol == NEWEST


def test_a_revoked_key_loses_its_session_and_its_connection_at_once(box: Box) -> None:
    with box.host(box.client) as host:
        host.hello()
        host.load("any")
        box.allow()
        assert host.expect(Reject).reason == "revoked"
        host.send(Ping(7))
        with pytest.raises(TimeoutError):
            host.expect(Pong, 1.0)
    with box.host(box.client, timeout=1.0) as host, pytest.raises(TimeoutError):
        host.hello()
    with box.host(box.owner) as host:
        assert host.hello().box == "attic"


def test_a_revoked_key_takes_nothing_from_the_others(box: Box) -> None:
    with box.serving_another(), box.host(box.client) as host:
        host.hello()
        box.allow(other=box.other)
        assert host.expect(Reject).reason == "revoked"


def test_a_revoked_key_is_refused_within_a_second_while_it_keeps_the_worker_busy(box: Box) -> None:
    with box.host(box.client) as host:
        host.hello()
        host.load("any")
        tile = np.zeros((8, 8, 3), np.uint8)
        host.upscale([tile])
        box.allow()
        revoked = time.monotonic()
        # As many as would take five seconds.
        with pytest.raises(AssertionError, match="revoked"):
            _ = [host.upscale([tile], sleep=0.005) for _ in range(1000)]
        assert time.monotonic() - revoked < 1.0
    assert "was revoked" in box.worker.stderr


def test_who_breaks_the_rules_again_and_again_is_kept_out_and_the_others_are_not(box: Box) -> None:
    with box.host(box.client) as bad:
        with box.serving_another():
            bad.hello()
            for _ in range(MAX_OFFENCES - 1):
                bad.send_raw([b"nonsense"])
            bad.send(Ping(1))
            assert bad.expect(Pong).nonce == 1, "once more would be too often"
            bad.send_raw([b"nonsense"])
            bad.send(Ping(2))
            with pytest.raises(TimeoutError):
                bad.expect(Pong, 1.0)
            with box.host(box.client, timeout=1.0) as again, pytest.raises(TimeoutError):
                again.hello()
        # ZeroMQ itself comes again until it is let in.
        bad.timeout = PENANCE_S + 5.0
        bad.hello()
    said = box.worker.stderr
    assert "refused: a message (malformed) from laptop" in said
    assert "laptop breaks the rules again and again" in said
    assert "refused: a client that is kept out from laptop" in said


def test_who_is_turned_away_is_told_of_with_a_number(box: Box) -> None:
    with box.host(box.client) as host:
        host.hello()
    for _ in range(3):
        with box.host(pair(), timeout=1.0) as stranger, pytest.raises(TimeoutError):
            stranger.hello()
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", box.listener.getsockname()[1])) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert _closed(stranger, None, within=3.0)
    with box.host(box.owner) as host:
        host.hello()
        host.send(Drain(1))
        host.expect(Drained)
    assert box.worker.ended() == 0
    said = box.worker.stderr
    assert said.count("refused: a key that is not allowed from 127.0.0.1 (") == 1
    assert "refused: a key that is not allowed from 127.0.0.1, 2 times more" in said
    # Of those that are gone at once the address may not be known any more.
    wordless = re.findall("refused: a connection without a word from .*?(?:, ([0-9]+) times more)?\n", said)
    assert sum(int(more or 1) for more in wordless) == 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nobody else says how many bytes have come")
def test_a_stranger_cannot_fill_the_memory_before_it_has_shown_a_key(box: Box) -> None:
    with box.host(box.client) as host:
        host.hello()
    before = resident(box.worker.process.pid)
    with socket.create_connection(("127.0.0.1", box.listener.getsockname()[1])) as stranger:
        # A greeting of ZMTP 3.1, then a frame that says that it is as long as ZeroMQ takes.
        stranger.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31))
        stranger.sendall(b"\x06" + (1 << 29).to_bytes(8, "big"))
        with pytest.raises(ConnectionError):
            _ = [stranger.sendall(bytes(1 << 18)) or time.sleep(0.005) for _ in range(1 << 9)]
    assert resident(box.worker.process.pid) - before < 64 << 20
    assert "refused: too many bytes without a word from 127.0.0.1" in box.worker.stderr


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_only_the_own_machine_may_drain(box: Box) -> None:
    with box.host(box.client) as host:
        host.hello()
        host.send(Drain(5))
        assert host.expect(Reject).reason == "forbidden"
    with box.host(box.owner) as host:
        host.hello()
        host.send(Drain(6))
        assert host.expect(Drained).id == 6
    assert box.worker.ended() == 0


def test_an_echo_comes_back_as_it_is_and_costs_nothing(box: Box) -> None:
    tile = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    with box.host(box.client) as host:
        host.hello()
        host.send(Echo(9, ()), arrays=[tile])
        received = host.expect_received(Echoed)
        assert bytes(received.buffers[0]) == tile.tobytes()
        assert host.expect(Credit) == Credit(1, tile.nbytes)


def test_a_client_that_comes_again_and_again_is_never_taken_for_a_stranger(box: Box) -> None:
    large = np.zeros((512, 512, 3), np.uint8)
    for _ in range(20):
        with box.host(box.client) as host:
            host.hello()
            host.send(Echo(5, ()), arrays=[large])
            host.expect(Echoed)
            # Its last word is read when the connection has ended, and the next one has the same descriptor.
            host.send(Bye())
    assert "too many bytes" not in box.worker.stderr


def test_silent_connections_are_closed_and_served_clients_are_not(box: Box) -> None:
    with box.host(box.client) as host:
        host.hello()
        crowd: list[socket.socket] = []
        try:
            for number in range(1200):
                crowd.append(socket.create_connection(("127.0.0.1", box.listener.getsockname()[1])))
                if number % 100 == 0:
                    host.send(Ping(1))
                    assert host.expect(Pong, 1.0).nonce == 1
            # The door keeps 1,024 of them; ZeroMQ itself closes the others after five seconds.
            assert _closed(crowd[0], host, within=3.0)
            assert _closed(crowd[-1], host, within=8.0)
        finally:
            for each in crowd:
                each.close()


def _closed(connection: socket.socket, served: FakeHost | None, *, within: float) -> bool:
    """Whether it ends in time, while another, where there is one, is served all along."""
    poller, until = select.poll(), time.monotonic() + within
    poller.register(connection, select.POLLIN)
    while time.monotonic() < until:
        if served is not None:
            served.send(Ping(1))
            assert served.expect(Pong, 1.0).nonce == 1
        try:
            # ZeroMQ greets first; what counts is the end.
            if poller.poll(200) and not connection.recv(256):
                return True
        except ConnectionError:
            return True
    return False


def test_a_list_that_cannot_be_read_lets_nobody_in_but_the_own_machine(tmp_path: Path) -> None:
    path = tmp_path / "allowed"
    path.write_bytes(b"laptop \xff\xfe")
    own, other = "a" * 64, "b" * 64
    allowed = Allowlist(own, str(path))
    assert own in allowed
    assert other not in allowed
    beside = tmp_path / "beside"
    beside.write_text(f"# mine\n\nlaptop {other.upper()}\nshort abc\nthree words here\n")
    beside.replace(path)
    assert allowed.refresh() == []
    assert allowed.name(other) == "laptop"
    path.unlink()
    assert allowed.refresh() == [other]


@pytest.mark.parametrize("line", ["", "#x " + "a" * 64, "x", "x " + "g" * 64, "x " + "a" * 63, "x y " + "a" * 64])
def test_lines_that_name_no_key_say_nothing(line: str) -> None:
    assert parse_allowed(line) is None


class Frame:
    """As a client's message comes: from which descriptor, by which route."""

    def __init__(self, fd: int, route: bytes, key: str) -> None:
        self.bytes, self._said = route, {"User-Id": key, zmq.SRCFD: fd}

    def get(self, what: Any) -> Any:
        return self._said[what]


def test_strangers_who_had_a_clients_descriptor_before_it_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A message is read before the comings and goings that were told of meanwhile, and descriptors are used again."""
    client, home = pair(), ("192.0.2.7", 5000)
    context: Any = zmq.Context()
    made = door.Door(context, CurveKeys(*pair(), client[0]))
    now = {"peer": home}
    monkeypatch.setattr(door, "peer_of", lambda _fd: now["peer"])
    key = key_text(client[0])
    assert made.caller(cast("Any", Frame(30, b"route", key))) == key
    # An earlier one of the same client, three strangers, and the client's own coming.
    for event in (zmq.EVENT_DISCONNECTED, *[zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED] * 3, zmq.EVENT_ACCEPTED):
        made._noted(event, 30)
    now["peer"] = NOWHERE
    made._noted(zmq.EVENT_DISCONNECTED, 30)
    made.close()
    context.term()
    assert [record.message for record in caplog.records] == [
        "refused: a connection without a word from an unknown address",
        "refused: a connection without a word from an unknown address, 2 times more",
    ]
