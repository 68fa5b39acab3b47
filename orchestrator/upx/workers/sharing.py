"""What a conversation has to do with shared memory: offer a ring, lend it, and know which answers lie in it.

Without a ring every question has the answer of tiles that travel, so that nobody else has to ask whether there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upx.workers.ring import open_ring, say_inline
from upx_protocol.ring import COMPLAINT, SHM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from upx.workers.ring import HostRing, Loan
    from upx_protocol import messages as wire
    from upx_protocol.arrays import Bytes


class Sharing:
    """The ring of one session, or none. ``wanted``: whether worker and system may be asked for one."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self.ring: HostRing | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """What ``Hello`` asks for."""
        return (SHM,) if self._wanted else ()

    def begin(self, features: Sequence[str], number: int) -> wire.Ring | None:
        """A session has begun: the offer to make, if any."""
        self.ring = open_ring() if self._wanted and SHM in features else None
        return self.ring.offer(number) if self.ring is not None else None

    def confirm(self, message: wire.Mapped) -> None:
        """The worker maps it, or says why not."""
        if self.ring is not None:
            self.ring.confirm(message.id, ok=message.ok)
            if not message.ok:
                say_inline(f"the worker cannot map the host's memory: {message.message}")

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
