"""Which model a worker holds, which one is on its way, and who waits for it.

Pure data and decisions; ``service`` acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, List, Optional, Tuple

from upx_protocol.arrays import ITEM_SIZES
from upx_protocol.messages import Load, Loaded

if TYPE_CHECKING:
    from upx_protocol.upscaler import LoadResult


@dataclass(frozen=True)
class Waiter:
    """A host's ``Load`` that is not answered yet."""

    session: str
    id: int


@dataclass
class Resident:
    """``loaded`` answers the model that is held, ``request`` asked for it; ``coming`` is being loaded or queued."""

    request: Optional[Load] = None
    loaded: Optional[Loaded] = None
    coming: Optional[Load] = None
    waiters: List[Waiter] = field(default_factory=list["Waiter"])

    @property
    def key(self) -> str:
        """The key of the model that is held, empty for none."""
        return self.request.key if self.request is not None else ""

    @property
    def model(self) -> str:
        """The name of the model that is held, empty for none."""
        return self.request.model if self.request is not None else ""

    @property
    def wanted(self) -> str:
        """The key that holds once all loads have ended, empty for none."""
        return self.coming.key if self.coming is not None else self.key

    def holds(self, load_id: str) -> bool:
        """Whether a batch for ``load_id`` can be computed now or after the loads before it."""
        return self.loaded is not None and self.loaded.load_id == load_id

    def expect(self, request: Load, waiter: Waiter) -> None:
        """A load is on its way."""
        self.coming = request
        self.waiters.append(waiter)

    def begin(self) -> None:
        """The backend starts to replace its model: from now on nothing is held."""
        self.request = self.loaded = None

    def end(self, load_id: str, result: Optional[LoadResult], seconds: float, weights: str = "") -> Tuple[Waiter, ...]:
        """A load ended; who waited for it."""
        request, waiters = self.coming, tuple(self.waiters)
        self.coming = None
        self.waiters.clear()
        if request is not None and result is not None:
            self.request = request
            self.loaded = Loaded(
                id=request.id,
                load_id=load_id,
                key=request.key,
                scale=result.scale,
                minimum=result.minimum,
                multiple_of=result.multiple_of,
                square=result.square,
                fixed=result.fixed,
                device=result.device,
                device_name=result.device_name,
                precision=result.precision,
                dtypes=tuple(ITEM_SIZES),
                seconds=seconds,
                weights=weights,
            )
        return waiters
