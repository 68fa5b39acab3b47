"""The ring through a real worker: results lie where they were asked for, and nothing else is ever touched."""

from __future__ import annotations

import fcntl
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from upx_protocol import ring
from upx_protocol.codec import decode, encode
from upx_protocol.errors import MalformedError, TransientError
from upx_protocol.messages import (
    Accepted,
    Buffer,
    Cancel,
    Cancelled,
    Credit,
    Failed,
    Mapped,
    Ping,
    Pong,
    Ring,
    Started,
    TileDone,
    Upscale,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from conftest import RunningWorker
    from upx_protocol.testing import FakeHost

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no memory without a name")

SIZE = 1 << 20
TILE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
COUNT = int(os.environ.get("UPX_MANGLED", "100000")) // 10
SEED = int(os.environ.get("UPX_SEED", "20261121"))


def doubled(tile: Any) -> Any:
    return tile.repeat(2, axis=0).repeat(2, axis=1)


class Lender:
    """A host's side of a ring, as simple as it can be: every batch from the bottom."""

    def __init__(self, host: FakeHost, size: int = SIZE) -> None:
        self.host = host
        host.hello(features=(ring.SHM,))
        self.memory = host.share(size)
        self.gen = 0
        host.load("any")

    def buffer(self, dtype: str, shape: tuple[int, ...], slot: int) -> Buffer:
        self.gen += 1
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        made = Buffer(dtype, shape, nbytes, "shm", slot, self.gen)
        self.memory.stamp(slot, self.gen)
        return made

    def lend(self, tiles: Sequence[Any], out_dtype: str = "uint8") -> tuple[tuple[Buffer, ...], tuple[Buffer, ...]]:
        height, width, _ = tiles[0].shape
        bufs = tuple(self.buffer(tile.dtype.name, tile.shape, 2 * index) for index, tile in enumerate(tiles))
        for buffer, tile in zip(bufs, tiles):  # noqa: B905  strict is Python 3.10's
            self.memory.room(buffer)[:] = tile
        shape = (2 * height, 2 * width, 3)
        return bufs, tuple(self.buffer(out_dtype, shape, 2 * (len(tiles) + index)) for index in range(len(tiles)))

    def send(self, bufs: Any, outs: Any, *, out_dtype: str = "uint8", **params: Any) -> int:
        number = self.host.number()
        self.host.send(Upscale(number, 0, self.host.load_id, bufs, out_dtype=out_dtype, outs=outs, params=params))
        return number

    def upscale(self, tiles: Sequence[Any], out_dtype: str = "uint8") -> list[Any]:
        bufs, outs = self.lend(tiles, out_dtype)
        number = self.send(bufs, outs, out_dtype=out_dtype)
        for index, out in enumerate(outs):
            done = self.host.expect(TileDone)
            assert (done.id, done.index, done.bufs) == (number, index, (out,))
        return [self.memory.read(out) for out in outs]

    def await_begin(self, bufs: Sequence[Buffer]) -> None:
        end = time.monotonic() + 5
        while not self.memory.begun(bufs[0]):
            assert time.monotonic() < end, "the batch was not begun"
            time.sleep(0.001)


@pytest.fixture
def lender(start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]) -> Iterator[Lender]:
    made = Lender(connect(start(), hello=False))
    yield made
    del made.memory  # a mapping holds a descriptor


def test_results_lie_in_the_slots_that_were_lent_for_them(lender: Lender) -> None:
    for first, second in ((0, 1), (2, 3)):
        results = lender.upscale([TILE + first, TILE + second])
        np.testing.assert_array_equal(results[0], doubled(TILE + first))
        np.testing.assert_array_equal(results[1], doubled(TILE + second))
        assert not results[0].flags.writeable


@pytest.mark.parametrize("asked", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("sent", ["uint8", "uint16", "float32"])
def test_a_result_in_the_ring_is_bit_for_bit_the_one_that_travels(lender: Lender, sent: str, asked: str) -> None:
    rng = np.random.default_rng(3)
    tile = rng.random((4, 6, 3), dtype=np.float32)
    tile = tile if sent == "float32" else (tile * np.iinfo(sent).max).astype(sent)
    (here,) = lender.upscale([tile], asked)
    (travelled,) = lender.host.upscale([tile], out_dtype=asked)
    assert here.dtype == travelled.dtype
    np.testing.assert_array_equal(here, travelled)


def test_an_answer_gives_its_credit_back_and_nothing_else_is_said(lender: Lender) -> None:
    for _ in range(20):
        lender.upscale([TILE])
    said = {type(received.message) for received in lender.host.skipped[-20:]}
    assert not said & {Accepted, Started, Credit}


def test_a_batch_is_noted_as_begun_before_it_is_computed_and_that_outlives_the_worker(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], sockets: Path
) -> None:
    worker = start()
    lender = Lender(connect(worker, hello=False))
    first, outs = lender.lend([TILE])
    second, _ = lender.lend([TILE])
    assert not lender.memory.begun(first[0])
    first, outs = lender.lend([TILE])
    lender.send(first, outs, sleep=30)
    lender.await_begin(first)
    worker.process.kill()
    worker.process.wait()
    (sockets / "0.sock").unlink()  # a killed worker cannot
    assert lender.memory.begun(first[0])
    assert not lender.memory.begun(second[0])
    lender.memory.stamp(first[0].slot, 0)
    assert not lender.memory.begun(first[0]), "a slot that is lent again is not begun"
    del lender.memory


def test_tiles_may_travel_beside_the_ring(lender: Lender) -> None:
    (result,) = lender.host.upscale([TILE])
    np.testing.assert_array_equal(result, doubled(TILE))


def test_a_cancelled_batch_writes_nothing_after_it_was_answered(lender: Lender) -> None:
    bufs, outs = lender.lend([TILE])
    number = lender.send(bufs, outs, sleep=0.3)
    lender.await_begin(bufs)
    lender.host.send(Cancel(number))
    lender.host.expect(Cancelled)
    (result,) = lender.upscale([TILE + 9])
    np.testing.assert_array_equal(result, doubled(TILE + 9))


def test_a_slot_that_was_given_away_meanwhile_is_not_written(lender: Lender) -> None:
    bufs, outs = lender.lend([TILE])
    lender.memory.read(outs[0])
    lender.send(bufs, outs, sleep=0.3)
    lender.await_begin(bufs)
    lender.memory.stamp(outs[0].slot, lender.gen + 7)
    failed = lender.host.expect(Failed)
    assert (failed.failure, failed.retryable) == ("transient", True)
    assert failed.message.startswith(ring.COMPLAINT)
    assert not lender.memory.read(outs[0]).any()


WRONG = {
    "outside": {"slot": SIZE // ring.UNIT},
    "far outside": {"slot": 2**62},
    "reaches over the end": {"slot": SIZE // ring.UNIT - 1, "shape": (40, 40, 3), "nbytes": 4800},
    "old": {"gen": 1},
    "not stamped": {"gen": 10**6},
}


@pytest.mark.parametrize("field", ["bufs", "outs"])
@pytest.mark.parametrize("wrong", list(WRONG), ids=list(WRONG))
def test_slots_that_are_wrong_are_refused_and_the_worker_serves_on(lender: Lender, field: str, wrong: str) -> None:
    lender.upscale([TILE])
    bufs, outs = lender.lend([TILE])
    bad = {"bufs": bufs, "outs": outs}
    bad[field] = (Buffer(**{**bad[field][0].__dict__, **WRONG[wrong]}),)
    lender.send(bad["bufs"], bad["outs"])
    failed = lender.host.expect(Failed)
    assert (failed.failure, failed.retryable) == ("transient", True)
    assert failed.message.startswith(ring.COMPLAINT)
    assert lender.host.expect(Credit).tiles == 1
    (result,) = lender.upscale([TILE + 1])
    np.testing.assert_array_equal(result, doubled(TILE + 1))


def test_results_of_another_shape_than_their_slots_are_refused(lender: Lender) -> None:
    bufs, _ = lender.lend([TILE])
    lender.send(bufs, (lender.buffer("uint8", (10, 10, 3), 9),))
    assert "no room" in lender.host.expect(Failed).message


def test_a_batch_that_lies_in_the_ring_in_part_is_malformed() -> None:
    slot = Buffer("uint8", (5, 7, 3), 105, "shm", 0, 1)
    travels = Buffer("uint8", (5, 7, 3), 105)
    for bufs, outs in (((slot,), ()), ((slot, slot), (slot,)), ((slot,), (travels,))):
        with pytest.raises(MalformedError):
            decode(encode(Upscale(1, 0, "load", bufs, outs=outs), session="s"))
    with pytest.raises(MalformedError, match="only a part"):
        decode([*encode(Upscale(1, 0, "load", (travels,), outs=(travels,)), session="s"), bytes(105)])


# ------------------------------------------------------------------ making and mapping


def offered(made: int, **changes: int) -> Ring:
    found = os.fstat(made)
    facts = {"id": 5, "pid": os.getpid(), "fd": made, "device": found.st_dev, "inode": found.st_ino}
    return Ring(**{**facts, "size": found.st_size, **changes})


@pytest.fixture
def fd() -> Any:
    made = ring.create(SIZE)
    yield made
    os.close(made)


def test_what_is_written_on_one_side_is_read_on_the_other(fd: int) -> None:
    buffer = Buffer("uint16", (2, 2, 3), 24, "shm", 3, 1)
    one, other = ring.Memory(fd, SIZE), ring.attach(offered(fd))
    one.stamp(3, 1)
    one.room(buffer)[:] = 513
    assert (other.read(buffer) == 513).all()
    other.stamp(3, 2)
    with pytest.raises(TransientError):
        one.room(buffer)


def test_a_ring_is_private_has_a_fixed_size_and_costs_nothing_yet(fd: int) -> None:
    found = os.fstat(fd)
    assert found.st_mode & 0o777 == 0o600
    assert found.st_nlink == found.st_blocks == 0
    for size in (0, SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)


def test_a_python_without_a_function_for_it_asks_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert ring.supported()
    made = ring.create(SIZE)
    assert ring.attach(offered(made)).size == SIZE
    with pytest.raises(PermissionError):
        os.ftruncate(made, 0)
    os.close(made)


@pytest.mark.parametrize("wrong", ["inode", "device", "size", "fd", "pid"])
def test_an_offer_that_is_not_what_it_says_is_refused(fd: int, wrong: str) -> None:
    value = {"inode": 1, "device": 10**6, "size": SIZE // 2, "fd": 10**6, "pid": 2**31 - 2}[wrong]
    with pytest.raises((OSError, ValueError)):
        ring.attach(offered(fd, **{wrong: value}))


def test_nothing_but_a_sealed_file_in_memory_is_mapped() -> None:
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING) if hasattr(os, "memfd_create") else -1
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        if unsealed >= 0:
            os.ftruncate(unsealed, SIZE)
        for fd in (file.fileno(), reader, writer, *([unsealed] if unsealed >= 0 else [])):
            with pytest.raises((OSError, ValueError)):
                ring.attach(offered(fd, size=SIZE))
    for fd in (reader, writer, *([unsealed] if unsealed >= 0 else [])):
        os.close(fd)


def test_a_ring_that_is_sealed_against_writing_is_refused() -> None:
    made = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(made, SIZE)
    fcntl.fcntl(made, 1033, 0xF)
    try:
        with pytest.raises(OSError, match=r"."):
            ring.attach(offered(made))
    finally:
        os.close(made)


def test_a_worker_says_why_it_does_not_map_and_goes_on_inline(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start(), hello=False)
    assert host.hello(features=("else", ring.SHM)).features == (ring.SHM,)
    host.send(Ring(7, os.getpid(), 0, 1, 2, SIZE))
    mapped = host.expect(Mapped)
    assert (mapped.id, mapped.ok) == (7, False)
    assert mapped.message
    host.load("any")
    (result,) = host.upscale([TILE])
    np.testing.assert_array_equal(result, doubled(TILE))


def test_one_ring_a_session(lender: Lender) -> None:
    with pytest.raises(AssertionError, match="there is a ring already"):
        lender.host.share(SIZE)


def test_a_ring_ends_with_its_session(lender: Lender, start: Callable[..., RunningWorker]) -> None:
    del start
    pid = lender.host.hello(features=(ring.SHM,)).pid
    deadline = time.monotonic() + 2
    while "upx-ring" in Path(f"/proc/{pid}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "upx-ring" not in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.timeout(120)
def test_a_worker_serves_on_among_slots_at_random(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    good, bad = connect(worker), Lender(connect(worker, hello=False))
    good.load("any")
    rng = random.Random(SEED)
    values = (-1, 0, 1, 2, 5, 200, 255, 256, 2**31, 2**62)
    for index in range(COUNT):
        bufs, outs = bad.lend([TILE, TILE])
        slots = []
        for b in (*bufs, *outs):
            slot, gen = rng.choice((b.slot, rng.choice(values))), b.gen + rng.choice((0, 0, 0, -1, 1))
            slots.append(Buffer(b.dtype, b.shape, b.nbytes, b.loc, slot, gen))
        bad.send(tuple(slots[:2]), tuple(slots[2:]))
        while bad.host.socket.poll(0):
            bad.host.receive()
        if index % (COUNT // 10) == 0:
            good.send(Ping(index))
            assert good.expect(Pong, timeout=10.0).nonce == index
            (result,) = good.upscale([TILE])
            np.testing.assert_array_equal(result, doubled(TILE))
    assert worker.process.poll() is None


def test_a_batch_of_which_a_later_tile_fails_answers_the_earlier_ones_and_gives_the_rest_back(lender: Lender) -> None:
    tiles = [TILE, TILE + 1, TILE + 2]
    bufs, outs = lender.lend(tiles)
    number = lender.send(bufs, outs, sleep=0.3)
    lender.await_begin(bufs)
    lender.memory.stamp(outs[1].slot, lender.gen + 5)
    done = lender.host.expect(TileDone)
    assert (done.id, done.index) == (number, 0)
    np.testing.assert_array_equal(lender.memory.read(outs[0]), doubled(TILE))
    assert lender.host.expect(Failed).failure == "transient"
    credit = lender.host.expect(Credit)
    assert (credit.tiles, credit.bytes) == (2, 2 * TILE.nbytes)
    results = lender.upscale([TILE + 5] * 4)
    np.testing.assert_array_equal(results[3], doubled(TILE + 5))
