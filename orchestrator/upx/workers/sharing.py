"""What a conversation has to do with shared memory: offer a ring with its pipes, lend it, know which answers lie there.

Without a ring every question has the answer of tiles that travel, so that nobody else has to ask whether there is one.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from upx.workers.ring import open_ring, say_inline
from upx_protocol.pipe import create
from upx_protocol.ring import COMPLAINT, SHM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from upx.workers.ring import HostRing, Loan
    from upx_protocol import messages as wire
    from upx_protocol.arrays import Bytes
    from upx_protocol.pipe import Ends, Pipe


class Sharing:
    """The ring of one session, or none. ``wanted``: whether worker and system may be asked for one."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self.ring: HostRing | None = None
        # The host's ends of the pipes and the worker's, until it has confirmed them or has not.
        self._pipe: Pipe | None = None
        self._ends: Ends | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """What ``Hello`` asks for."""
        return (SHM,) if self._wanted else ()

    def begin(self, features: Sequence[str], number: int) -> wire.Ring | None:
        """A session has begun: the offer to make, if any."""
        self.ring = open_ring() if self._wanted and SHM in features else None
        if self.ring is None:
            return None
        with contextlib.suppress(OSError):
            self._pipe, self._ends = create()
        return replace(self.ring.offer(number), **(self._ends.fields() if self._ends is not None else {}))

    def confirm(self, message: wire.Mapped) -> Pipe | None:
        """The worker maps it, or says why not. The pipe that is the caller's from here on, None where there is none."""
        if self.ring is None or not self.ring.confirm(message.id, ok=message.ok):
            return None
        if not message.ok:
            say_inline(f"the worker cannot map the host's memory: {message.message}")
        pipe = self._pipe if message.ok and message.pipes else None
        if pipe is not None:
            self._pipe = None
        self._close_pipes()
        return pipe

    def lend(
        self, batch: tuple[int, int], arrays: Sequence[NDArray[Any]], *, scale: int, out_dtype: str, now: float
    ) -> Loan | None:
        """Slots for a batch; None where it travels."""
        if self.ring is None:
            return None
        return self.ring.lend(batch, arrays, scale=scale, out_dtype=out_dtype, now=now)

    def begun(self) -> list[tuple[int, int]]:
        """Batches that the worker has begun, each told once."""
        return self.ring.begun() if self.ring is not None else []

    def answered(self, message: wire.TileDone, buffers: Sequence[Bytes]) -> tuple[Bytes, int] | None:
        """A result's memory, and bytes of credit that it gives back; None where it does not lie where it should.

        What lay in the ring gives its credit back by being answered.
        """
        batch = (message.id, message.attempt)
        lent = self.ring.tile(batch, message.index) if self.ring is not None else None
        if self.ring is None or lent is None:
            return (buffers[0], 0) if buffers else None
        data = self.ring.answer(batch, message.index, message.bufs[0])
        return (data, lent.nbytes) if data is not None else None

    def failed(self, message: wire.Failed) -> None:
        """A batch has ended badly. Where one of us is wrong about a slot, nothing is lent from here on."""
        self.ended(message.id, message.attempt)
        if self.ring is not None and message.message.startswith(COMPLAINT):
            self.ring.usable = False
            say_inline(message.message)

    def ended(self, batch: int, attempt: int) -> None:
        """The worker has a batch no more."""
        if self.ring is not None:
            self.ring.end((batch, attempt))

    def refused(self, batch: int) -> None:
        """The worker never had it."""
        if self.ring is not None:
            self.ring.end_all(batch)

    def tidy(self, now: float) -> None:
        """Give back what has not been used for a while."""
        if self.ring is not None:
            self.ring.trim(now)

    def close(self) -> None:
        """Let go of the memory; arrays that somebody still reads keep it."""
        if self.ring is not None:
            self.ring.close()
        self.ring = None
        self._close_pipes()

    def _close_pipes(self) -> None:
        for each in (self._pipe, self._ends):
            if each is not None:
                each.close()
        self._pipe = self._ends = None
