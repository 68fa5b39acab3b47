"""Weights that a box lacks, sent by the client that has them: verified, resumed, once, or refused."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from box_kit import Box, Machine, until
from fault_server import Content
from heavy_kit import BINDING, enlarged, heavy, keep
from PIL import Image

from upx.remote.keys import z85
from upx_protocol.files import CHUNK, WINDOW
from upx_protocol.messages import Chunk, Failed, Load, Message, Offer, Taken, Want, Wanted
from upx_protocol.testing import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")

PICTURE = np.random.default_rng(7).integers(0, 256, (48, 64, 3), np.uint8)
SMALL, LARGE = Content(1_000_003, seed=5), Content(96_000_007, seed=6)
SERVE = ("worker", "serve", "heavy", "--listen", "tcp://127.0.0.1:0", "--name", "attic", "--offline")
TAKE = (*SERVE, "--take-files")


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "in.png"
    Image.fromarray(PICTURE).save(path)
    return path


def up(machine: Machine, picture: Path, *words: str, out: str = "out.png") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "upx", "up", str(picture), "-b", "heavy", "--on", "attic", "--json"]
    command += ["-o", str(machine.home / out), "-v", *words]
    return subprocess.Popen(command, env=machine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(process: subprocess.Popen[str], content: Content, seconds: float = 60.0) -> str:
    """The words of a job that ended well, with the right pixels."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    record = json.loads(out.splitlines()[0])
    assert np.array_equal(np.asarray(Image.open(record["output"])), enlarged(PICTURE, content))
    return err


@pytest.fixture
def begin(serve, attic, laptop) -> Callable[..., Box]:
    """``begin(content, *words)``: a box that serves heavy and lacks its weights, which the laptop has."""

    def call(content: Content, *words: str, **facts: str) -> Box:
        for machine in (attic, laptop):
            heavy(machine.home, content, **facts)
        keep(laptop.home, content)
        attic.keys.allow("laptop", laptop.keys.public("client"))
        box = serve(*(words or TAKE))
        laptop.knows(box)
        return box

    return call


def blobs(machine: Machine) -> list[str]:
    folder = machine.home / "data" / "weights" / "blobs"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def parts(machine: Machine) -> list[str]:
    folder = machine.home / "data" / "weights" / "parts"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_weights_that_the_box_lacks_arrive_once_and_give_the_right_pixels(begin, laptop, attic, picture) -> None:
    box = begin(SMALL)
    said = done(up(laptop, picture), SMALL)
    assert "sending weights.bin" in said
    assert blobs(attic) == [SMALL.sha256]
    assert parts(attic) == []
    assert "sending" not in done(up(laptop, picture, out="again.png"), SMALL)
    assert box.said.count("a client sends") == 1


def test_a_box_that_was_not_told_to_takes_nothing_and_both_ways_are_named(begin, laptop, attic, picture) -> None:
    begin(SMALL, *SERVE)
    out, err = up(laptop, picture).communicate(timeout=60)
    assert "--take-files" in err, out + err
    assert "upx models pull heavy-x2" in err
    assert blobs(attic) == parts(attic) == []


# ---------------------------------------------------------------------------------------------- broken off


def part_size(machine: Machine, content: Content) -> int:
    try:
        return (machine.home / "data" / "weights" / "parts" / f"{content.sha256}.part").stat().st_size
    except OSError:
        return 0


def await_part(machine: Machine, content: Content) -> None:
    """Wait until a part of it is there."""
    deadline = time.monotonic() + 30.0
    while not part_size(machine, content) > content.size // 20:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def resumed(box: Box) -> list[int]:
    """Where each try to send began."""
    return [int(start) for start in re.findall(r"a client sends \w+, from (\d+) on", box.said)]


def test_a_client_that_is_killed_midway_goes_on_where_it_was(begin, laptop, attic, picture) -> None:
    box = begin(LARGE)
    first = up(laptop, picture)
    await_part(attic, LARGE)
    first.kill()
    first.communicate()
    assert blobs(attic) == []
    assert 0 < part_size(attic, LARGE) < LARGE.size
    done(up(laptop, picture), LARGE)
    assert resumed(box)[0] == 0
    assert resumed(box)[-1] >= LARGE.size // 20
    assert (blobs(attic), parts(attic)) == ([LARGE.sha256], [])


def test_a_worker_that_is_killed_midway_is_sent_the_rest(begin, laptop, attic, picture) -> None:
    box = begin(LARGE)
    job = up(laptop, picture)
    await_part(attic, LARGE)
    os.kill(box.child, signal.SIGKILL)
    done(job, LARGE)
    starts = resumed(box)
    assert len(starts) == 2
    assert starts[1] >= LARGE.size // 20
    assert (blobs(attic), parts(attic)) == ([LARGE.sha256], [])


def test_a_box_that_is_killed_midway_and_comes_back_is_sent_the_rest(begin, serve, laptop, attic, picture) -> None:
    box = begin(LARGE)
    job = up(laptop, picture)
    await_part(attic, LARGE)
    box.kill()
    assert blobs(attic) == []
    again = serve(*(box.address if word == "tcp://127.0.0.1:0" else word for word in TAKE))
    done(job, LARGE)
    assert resumed(again)[0] >= LARGE.size // 20
    assert (blobs(attic), parts(attic)) == ([LARGE.sha256], [])


# ---------------------------------------------------------------------------------------------- several


def test_two_clients_at_once_bring_one_file_once(begin, laptop, attic, picture, upx_env, tmp_path) -> None:
    box = begin(LARGE)
    other = Machine(tmp_path / "other", upx_env)
    heavy(other.home, LARGE)
    keep(other.home, LARGE)
    attic.keys.allow("other", other.keys.public("client"))
    key = attic.keys.public("server")
    until(lambda: other.upx("worker", "add", "attic", box.address, "--key", key).returncode == 0)
    jobs = [up(machine, picture) for machine in (laptop, other)]
    said = [done(job, LARGE) for job in jobs]
    assert sum("sending" in words for words in said) >= 1
    assert resumed(box) == [0]
    assert (blobs(attic), parts(attic)) == ([LARGE.sha256], [])


def test_two_workers_of_a_box_are_sent_one_file_once(begin, laptop, attic, picture) -> None:
    box = begin(SMALL, *TAKE, "--device", "cpu,cpu")
    done(up(laptop, picture, "--set", "delay=2"), SMALL)
    assert resumed(box) == [0]


def test_a_file_that_two_models_share_and_one_that_is_there_are_not_sent(begin, laptop, attic, picture) -> None:
    box = begin(SMALL)
    keep(attic.home, SMALL)
    done(up(laptop, picture), SMALL)
    assert resumed(box) == []


# ---------------------------------------------------------------------------------------------- refused


def failed(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5, out + err
    return err


def test_a_client_that_lacks_them_too_says_what_to_do_on_both_machines(begin, laptop, attic, picture) -> None:
    begin(SMALL)
    shutil.rmtree(laptop.home / "data" / "weights")
    said = failed(up(laptop, picture))
    assert "heavy-x2 is not here either" in said
    assert "upx models pull heavy-x2" in said
    assert blobs(attic) == parts(attic) == []


def test_a_disk_of_the_box_that_is_full_ends_the_job_with_that(begin, laptop, attic, picture) -> None:
    box = begin(SMALL)
    resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (600_000, 600_000))
    said = failed(up(laptop, picture))
    assert "weights.bin was not taken" in said
    assert "File too large" in said
    assert blobs(attic) == []


def test_a_licence_that_the_client_has_not_accepted_keeps_the_file_here(begin, laptop, attic, picture) -> None:
    begin(SMALL, *TAKE, "--accept-licence", licence=BINDING)
    said = failed(up(laptop, picture))
    assert "nothing was sent from here" in said
    assert "CC-BY-NC-4.0" in said
    assert blobs(attic) == parts(attic) == []
    done(up(laptop, picture, "--accept-licence"), SMALL)
    assert blobs(attic) == [SMALL.sha256]


def test_a_client_whose_file_is_damaged_sends_nothing(begin, laptop, attic, picture) -> None:
    begin(SMALL)
    blob = laptop.home / "data" / "weights" / "blobs" / SMALL.sha256
    blob.chmod(0o644)
    blob.write_bytes(bytes(SMALL.size))
    assert "differs from its sha256" in failed(up(laptop, picture))
    assert parts(attic) == []


# ---------------------------------------------------------------------------------------------- hostile clients


@pytest.fixture
def guest(begin, attic, laptop) -> Iterator[FakeHost]:
    """A client that is let in, and says whatever a test makes it say; the box wants SMALL."""
    box, keys = begin(SMALL), laptop.keys.client()
    curve = (z85(attic.keys.public("server")), keys.public, keys.secret)
    with FakeHost(box.address, timeout=20.0, curve=curve) as host:
        assert host.hello(features=("files",)).features == ("files",)
        host.send(Load(host.number(), "key", "heavy-x2", precision="auto"))
        assert host.expect(Want).files == (Wanted("weights", "weights.bin", SMALL.sha256, SMALL.size),)
        yield host


def offer(host: FakeHost, sha256: str = SMALL.sha256, size: int = SMALL.size) -> tuple[int, Message]:
    number = host.number()
    host.send(Offer(number, sha256, size))
    while True:
        message = host.receive().message
        if getattr(message, "id", None) == number:
            return number, message


def send(host: FakeHost, number: int, data: bytes, start: int = 0) -> Message:
    """Every chunk at once, whatever the box says meanwhile; its last word."""
    for offset in range(start, len(data), CHUNK):
        host.send(Chunk(number, offset, ()), arrays=[np.frombuffer(data[offset : offset + CHUNK], np.uint8)])
    while True:
        message = host.receive().message
        if isinstance(message, Failed) or (isinstance(message, Taken) and message.offset >= len(data)):
            return message


def test_a_client_that_sends_other_bytes_leaves_nothing_and_the_right_ones_are_taken_after(guest, attic) -> None:
    number, taken = offer(guest)
    assert taken == Taken(number, 0, WINDOW)
    said = send(guest, number, bytes(SMALL.size))
    assert isinstance(said, Failed)
    assert "sha256 differs" in said.message
    assert blobs(attic) == parts(attic) == []
    number, _ = offer(guest)
    assert send(guest, number, SMALL.bytes) == Taken(number, SMALL.size, WINDOW)
    assert blobs(attic) == [SMALL.sha256]


@pytest.mark.parametrize(
    ("sha256", "size"),
    [("ff" * 32, 9), (SMALL.sha256, SMALL.size + 1), (SMALL.sha256, 1 << 40), ("../../../etc/passwd", 9)],
    ids=["unwanted", "longer", "endless", "path"],
)
def test_a_client_that_offers_something_else_is_refused_and_nothing_is_written(guest, attic, sha256, size) -> None:
    _, said = offer(guest, sha256, size)
    assert isinstance(said, Failed)
    assert not said.retryable
    assert blobs(attic) == parts(attic) == []


def test_a_client_that_sends_too_much_or_elsewhere_loses_its_turn_and_nobody_elses(guest, attic) -> None:
    for start in (CHUNK, -1, SMALL.size):
        number, _ = offer(guest)
        guest.send(Chunk(number, start, ()), arrays=[np.zeros(CHUNK, np.uint8)])
        assert guest.expect(Failed).id == number
    number, _ = offer(guest)
    assert send(guest, number, SMALL.bytes) == Taken(number, SMALL.size, WINDOW)
    assert blobs(attic) == [SMALL.sha256]


def test_a_client_that_knows_nothing_of_files_hears_what_it_heard_before(begin, attic, laptop) -> None:
    box, keys = begin(SMALL), laptop.keys.client()
    curve = (z85(attic.keys.public("server")), keys.public, keys.secret)
    with FakeHost(box.address, timeout=20.0, curve=curve) as host:
        assert host.hello().features == ()
        host.send(Load(2, "key", "heavy-x2", precision="auto"))
        failed = host.expect(Failed)
        assert (failed.id, failed.failure, failed.retryable) == (2, "input", False)
        assert "weights.bin" in failed.message
        _, said = offer(host)
        assert isinstance(said, Failed)
    assert parts(attic) == []
