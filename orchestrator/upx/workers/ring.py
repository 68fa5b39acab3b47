"""The host's side of a ring: makes it, lends slots to a worker batch by batch, and gets them back with the answers.

    free ──lend──> the worker's ──answer──> the reader's ──the array is let go──> free
                        └──────────end: failed, cancelled, refused──────────────────^

One ring a session, and never another's: what a lost worker may still write hits nobody. Belongs to the I/O thread;
only the arrays that it hands out may be let go anywhere.
"""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections import deque
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from upx.workers import machine
from upx.workers.slots import Slots
from upx_protocol.arrays import ITEM_SIZES, dtype_name
from upx_protocol.messages import Buffer, Ring
from upx_protocol.ring import MAX_RING, UNIT, Memory, create, supported, units_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

log = logging.getLogger("upx.workers")
# Address space, of which only what is used becomes memory: two batches of eight 512 x 512 tiles, four times enlarged,
# twice over. Larger batches travel inline.
SIZE = 512 << 20
SHARE_OF_MEMORY = 8
# Seconds without a tile after which the memory is given back.
IDLE_S = 1.0
LEAST = 16 << 20


def size_for(available: int) -> int:
    """Bytes of a ring on a machine with so many available (0: unknown), whole units; 0 where none is worth it."""
    size = min(SIZE, available // SHARE_OF_MEMORY or SIZE, MAX_RING) // UNIT * UNIT
    return size if size >= LEAST else 0


@dataclass(slots=True)
class Loan:
    """The slots of one batch that a worker has.

    ``waiting``: results by index that have not come; ``begun``: it was seen that the batch is being computed.
    """

    bufs: tuple[Buffer, ...]
    outs: tuple[Buffer, ...]
    waiting: dict[int, Buffer] = field(default_factory=dict[int, Buffer])
    begun: bool = False


class HostRing:
    """Memory that is shared with one worker in one session, once that has confirmed it."""

    def __init__(self, size: int) -> None:
        self._fd = create(size)
        try:
            self._memory = Memory(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise
        self._slots = Slots(size // UNIT)
        self._gen = 0
        self._loans: dict[tuple[int, int], Loan] = {}
        self._let_go: deque[int] = deque()
        self._readers: dict[int, weakref.ref[Any]] = {}
        self._used = 0.0
        self._dirty = False
        self._offer = 0
        self.usable = False

    def offer(self, number: int) -> Ring:
        """What the worker has to be told, once."""
        self._offer = number
        found = os.fstat(self._fd)
        return Ring(number, os.getpid(), self._fd, found.st_dev, found.st_ino, self._memory.size)

    def confirm(self, number: int, *, ok: bool) -> bool:
        """The worker has mapped it, or never will; False where that was not the question.

        Nobody needs the descriptor any more.
        """
        if number != self._offer or self._fd < 0:
            return False
        self.usable = ok
        self.close()
        return True

    def close(self) -> None:
        """Close the descriptor; the memory stays as long as somebody maps it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Lending

    def lend(
        self, batch: tuple[int, int], arrays: Sequence[NDArray[Any]], *, scale: int, out_dtype: str, now: float
    ) -> Loan | None:
        """Slots for a batch, its tiles written there; None where it has to travel inline."""
        dtype = dtype_name(arrays[0])
        known = out_dtype in ITEM_SIZES and dtype in ITEM_SIZES
        if not self.usable or not known or batch in self._loans:
            return None
        self._collect()
        height, width = arrays[0].shape[:2]
        shape = (height * scale, width * scale, 3)
        bufs = [self._take(dtype, array.shape, array.nbytes) for array in arrays]
        room = math.prod(shape) * ITEM_SIZES[out_dtype]
        outs = [self._take(out_dtype, shape, room) for _ in arrays]
        taken = [buffer for buffer in (*bufs, *outs) if buffer is not None]
        if len(taken) < 2 * len(arrays):
            self._give(taken)
            return None
        for buffer in taken:
            self._memory.stamp(buffer.slot, buffer.gen)
        loan = Loan(tuple(taken[: len(arrays)]), tuple(taken[len(arrays) :]))
        for buffer, array in zip(loan.bufs, arrays, strict=True):
            np.copyto(self._memory.room(buffer), array)
        loan.waiting.update(enumerate(loan.outs))
        self._loans[batch] = loan
        self._used, self._dirty = now, True
        return loan

    def tile(self, batch: tuple[int, int], index: int) -> Buffer | None:
        """What was lent for a tile that has no answer yet."""
        loan = self._loans.get(batch)
        return loan.bufs[index] if loan is not None and index in loan.waiting else None

    def begun(self) -> list[tuple[int, int]]:
        """The batches of which the worker has noted since the last time that it computes them."""
        new = [key for key, loan in self._loans.items() if not loan.begun and self._memory.begun(loan.bufs[0])]
        for key in new:
            self._loans[key].begun = True
        return new

    def answer(self, batch: tuple[int, int], index: int, buffer: Buffer) -> Any:
        """The memory of a result that came; None where it is not the slot that was lent for it.

        The slot is free again when the last array of that memory is gone.
        """
        loan = self._loans[batch]
        if loan.waiting.get(index) != buffer:
            return None
        del loan.waiting[index]
        data = self._memory.data(buffer)
        # May be called by any thread; knows nothing of the ring, which ends by itself when it is not used any more.
        let_go = partial(_note, self._let_go, buffer.slot)
        self._readers[buffer.slot] = weakref.ref(data, let_go)
        if not loan.waiting:
            self.end(batch)
        return data

    def end(self, batch: tuple[int, int]) -> None:
        """The worker has a batch no more: whatever was not answered is free."""
        loan = self._loans.pop(batch, None)
        if loan is not None:
            self._give([*loan.bufs, *loan.waiting.values()])

    def end_all(self, batch: int) -> None:
        """The same for every attempt of a batch."""
        for key in [key for key in self._loans if key[0] == batch]:
            self.end(key)

    def trim(self, now: float) -> None:
        """Give the memory back when no tile came for a while."""
        if (self._dirty or self._let_go) and not self._loans and now - self._used > IDLE_S:
            self._collect()
            for start, units in self._slots.free:
                self._memory.forget(start, units)
            self._dirty = False

    def _take(self, dtype: str, shape: tuple[int, ...], nbytes: int) -> Buffer | None:
        slot = self._slots.take(units_of(nbytes))
        if slot is None:
            return None
        self._gen += 1
        return Buffer.in_ring(dtype, shape, nbytes, slot, self._gen)

    def _give(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            self._free(buffer.slot)

    def _free(self, slot: int) -> None:
        # What comes too late for its slot must find another generation there.
        self._memory.stamp(slot, 0)
        self._slots.give(slot)

    def _collect(self) -> None:
        """Take back what readers have let go."""
        while self._let_go:
            slot = self._let_go.popleft()
            del self._readers[slot]
            self._free(slot)


def _note(let_go: deque[int], slot: int, _data: object) -> None:
    let_go.append(slot)


def possible(endpoint: str) -> bool:
    """Whether a worker at that endpoint can share memory with this process."""
    return endpoint.startswith("ipc:") and supported()


def open_ring() -> HostRing | None:
    """A ring; None where memory is short, which is said in the log."""
    size = size_for(machine.available_memory())
    try:
        return HostRing(size) if size else None
    except OSError as error:
        say_inline(f"shared memory cannot be had: {error.strerror or error}")
        return None


@cache
def say_inline(why: str) -> None:
    """Say once that tiles travel through the socket, which is slower and nothing else."""
    log.info("tiles travel through the socket: %s", why)
