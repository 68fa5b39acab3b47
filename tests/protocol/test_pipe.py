"""The pipes beside a ring: what goes in comes out whole, in order, before the socket; then through a real worker."""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from test_ring import SIZE, TILE, Lender, doubled

from upx_protocol import ring
from upx_protocol.codec import decode, encode
from upx_protocol.messages import Buffer, Cancel, Cancelled, Mapped, Ping, Pong, Reject, Ring, TileDone, Upscale
from upx_protocol.pipe import LONGEST, Ends, Pipe, connect, create
from upx_protocol.ring import SHM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import RunningWorker
    from upx_protocol.testing import FakeHost

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux opens another process's pipes")
LENGTH = struct.Struct("<H")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  it lists itself


def offered(ends: Ends, **changes: int) -> Ring:
    return Ring(1, **{"pid": os.getpid(), "fd": 0, "device": 0, "inode": 0, "size": 0, **ends.fields(), **changes})


class Both:
    """A host's pipe and a worker's, in one process."""

    def __init__(self) -> None:
        self.host, ends = create()
        self.worker = connect(offered(ends))
        ends.close()

    def close(self) -> None:
        for pipe in (self.host, self.worker):
            if pipe.fileno() in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208  it lists itself
                pipe.close()


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.close()


def test_messages_come_out_as_they_went_in_both_ways(both: Both) -> None:
    assert both.worker.receive() == []
    sent = [b"a", b"", bytes(LONGEST), b"z" * 300]
    assert all(both.host.send(each) for each in sent)
    assert both.worker.receive() == sent
    assert both.worker.send(memoryview(b"back"))
    assert both.host.receive() == [b"back"]
    assert both.worker.receive() == both.host.receive() == []
    assert not both.host.ended
    assert not both.worker.ended


def test_a_full_pipe_takes_nothing_and_nothing_in_part(both: Both) -> None:
    sent: list[bytes] = []
    while both.host.send(message := os.urandom(1000 + len(sent))):
        sent.append(message)
        assert len(sent) < 1000
    assert len(sent) > 40, "enough for every batch that may be on its way"
    came: list[bytes] = []
    while more := both.worker.receive():
        came += more
    assert came == sent
    assert both.host.send(b"again")
    assert both.worker.receive() == [b"again"]


def test_what_is_too_long_goes_another_way(both: Both) -> None:
    assert not both.host.send(bytes(LONGEST + 1))
    assert both.worker.receive() == []


def test_a_message_in_pieces_is_put_together(both: Both) -> None:
    ends = both.host._writer
    for piece in (b"\x05", b"\x00he", b"llo\x02\x00h", b"i\x01"):
        os.write(ends, piece)
    assert both.worker.receive() == [b"hello", b"hi"]
    os.write(ends, b"\x00!")
    assert both.worker.receive() == [b"!"]


def test_nonsense_ends_it_after_what_came_before(both: Both) -> None:
    both.host.send(b"good")
    os.write(both.host._writer, LENGTH.pack(LONGEST + 1) + bytes(10))
    assert both.worker.receive() == [b"good"]
    assert both.worker.ended
    assert not both.worker.send(b"more")


def test_each_side_sees_the_other_leave_once_the_offer_is_closed(both: Both) -> None:
    both.worker.send(b"last")
    both.worker.close()
    assert both.host.receive() == [b"last"]
    assert not both.host.ended
    assert both.host.receive() == []
    assert both.host.ended
    assert not both.host.send(b"anybody?")


@pytest.mark.parametrize(
    "changes",
    [{"reader": -1}, {"writer": -1}, {"pid": 0}, {"reader_inode": 1}, {"writer_inode": 1}, {"reader": 1 << 30}],
    ids=str,
)
def test_an_offer_that_is_not_what_it_says_is_refused(changes: dict[str, int]) -> None:
    pipe, ends = create()
    before = descriptors(os.getpid())
    try:
        with pytest.raises((OSError, ValueError)):
            connect(offered(ends, **changes))
        assert descriptors(os.getpid()) == before
    finally:
        ends.close()
        pipe.close()


def test_nothing_but_a_pipe_is_opened() -> None:
    pipe, ends = create()
    with tempfile.TemporaryFile() as file:
        inode = os.fstat(file.fileno()).st_ino
        for way in ("reader", "writer"):
            with pytest.raises(ValueError, match="no such pipe"):
                connect(offered(ends, **{way: file.fileno(), f"{way}_inode": inode}))
    ends.close()
    pipe.close()


# ------------------------------------------------------------------ through a real worker


class Piper(Lender):
    """A lender whose batches go into the pipe."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        host.hello(features=(SHM,))
        self.memory, self.gen = host.share(SIZE, piped=True), 0
        host.load("any")

    @property
    def pipe(self) -> Pipe:
        assert self.host.pipe is not None
        return self.host.pipe

    def batch(self, first: int = 0, **params: Any) -> tuple[int, Buffer, Buffer]:
        """Put one into the pipe, in slots from ``first`` on: its number, its tile's buffer and its result's."""
        buf = self.buffer("uint8", TILE.shape, first)
        self.memory.room(buf)[:] = TILE
        out = self.buffer("uint8", (10, 14, 3), first + 2)
        number = self.host.number()
        message = Upscale(number, 0, self.host.load_id, (buf,), outs=(out,), params=params)
        assert self.pipe.send(encode(message, session=self.host.session)[0])
        return number, buf, out

    def piped(self, seconds: float = 5.0) -> Any:
        """The next message of the pipe."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            came = self.pipe.receive()
            if came:
                (message,) = came
                return decode([message]).message
            time.sleep(0.001)
        raise TimeoutError("nothing came through the pipe")


@pytest.fixture
def piper(start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]) -> Iterator[Piper]:
    made = Piper(connect(start(), hello=False))
    yield made
    del made.memory  # a mapping holds a descriptor


def test_a_batch_and_its_answer_go_through_the_pipe_alone(piper: Piper) -> None:
    for _ in range(3):
        number, _, out = piper.batch()
        done = piper.piped()
        assert isinstance(done, TileDone)
        assert (done.id, done.bufs) == (number, (out,))
        np.testing.assert_array_equal(piper.memory.read(out), doubled(TILE))
    assert not piper.host.socket.poll(50), "nothing is said twice"


def test_batches_through_the_socket_are_answered_through_the_pipe_and_travelling_tiles_are_not(piper: Piper) -> None:
    number = piper.send(*piper.lend([TILE]))
    assert piper.piped().id == number
    (result,) = piper.host.upscale([TILE])
    np.testing.assert_array_equal(result, doubled(TILE))
    assert piper.pipe.receive() == []


def test_what_was_put_into_the_pipe_first_is_heard_first(piper: Piper) -> None:
    """A cancel that overtook its batch would find nothing, and the batch be computed for nobody."""
    slow, buf, _ = piper.batch(sleep=2.0)
    piper.await_begin([buf])
    for each in range(30):
        number, _, _ = piper.batch(4 + 4 * each)
        piper.host.send(Cancel(number, 0))
        assert piper.host.expect(Cancelled, timeout=1.0).id == number
    assert piper.piped().id == slow
    piper.host.send(Ping(1))
    assert piper.host.expect(Pong).tiles_done == 1
    assert piper.pipe.receive() == []


def test_a_worker_that_computes_hears_its_pipe(piper: Piper) -> None:
    slow, buf, _ = piper.batch(sleep=0.5)
    piper.await_begin([buf])
    piper.pipe.send(encode(Ping(7), session=piper.host.session)[0])
    assert piper.host.expect(Pong, timeout=0.4).nonce == 7
    assert piper.piped().id == slow


def test_nonsense_in_the_pipe_is_answered_and_too_much_of_it_ends_the_pipe_alone(piper: Piper) -> None:
    assert piper.pipe.send(b"\xc1")
    assert piper.host.expect(Reject).reason == "malformed"
    os.write(piper.pipe._writer, b"\xff\xff!")
    end = time.monotonic() + 5
    while not piper.pipe.ended and time.monotonic() < end:
        piper.pipe.receive()
        time.sleep(0.01)
    assert piper.pipe.ended
    assert piper.upscale([TILE])[0].shape == (10, 14, 3), "the socket serves on"


def test_the_pipe_ends_with_its_session(piper: Piper) -> None:
    pid = piper.host.hello(features=(SHM,)).pid
    end = time.monotonic() + 5
    while not piper.pipe.ended and time.monotonic() < end:
        piper.pipe.receive()
        time.sleep(0.01)
    assert piper.pipe.ended
    piper.pipe.close()
    memory = piper.host.share(SIZE, piped=True)
    held = descriptors(pid)
    piper.pipe.close()
    piper.host.pipe = None
    while descriptors(pid) > held - 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert descriptors(pid) == held - 2, "a host that closes its ends leaves the worker none"
    del memory


def test_pipes_that_cannot_be_opened_are_no_hindrance(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start(), hello=False)
    host.hello(features=(SHM,))
    fd = ring.create(SIZE)
    found = os.fstat(fd)
    # The memory itself is what is offered as a pipe.
    host.send(Ring(7, os.getpid(), fd, found.st_dev, found.st_ino, SIZE, fd, found.st_ino, fd, found.st_ino))
    mapped = host.expect(Mapped)
    os.close(fd)
    assert (mapped.ok, mapped.pipes) == (True, False)
