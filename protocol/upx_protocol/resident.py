"""Which model a worker holds, which one is on its way, and who waits for it.

Pure data and decisions; ``service`` acts on them. Two requests are for the same model when their keys say so. On one
machine a host makes the key. A worker that serves a network believes nobody's, or one host could have another use a
model that it did not ask for: it makes its own, and compares the weights apart, since not every host knows them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, List, Optional, Tuple

from upx_protocol.arrays import ITEM_SIZES
from upx_protocol.messages import Load, Loaded

if TYPE_CHECKING:
    from upx_protocol.upscaler import LoadResult


@dataclass(frozen=True)
class Waiter:
    """A host's ``Load`` that is not answered yet."""

    session: str
    request: Load

    @property
    def id(self) -> int:
        """Of the request."""
        return self.request.id


@dataclass
class Resident:
    """``loaded`` answers the model that is held, ``request`` asked for it; ``coming`` is being loaded or queued.

    ``own_keys``: the worker makes the keys itself.
    """

    own_keys: bool = False
    request: Optional[Load] = None
    loaded: Optional[Loaded] = None
    coming: Optional[Load] = None
    waiters: List[Waiter] = field(default_factory=list["Waiter"])

    def key_of(self, request: Load) -> str:
        """What says which model a request is for, but for its weights."""
        if not self.own_keys:
            return request.key
        said = (request.model, request.precision, request.threads, sorted(request.params.items()))
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def key(self) -> str:
        """The key of the model that is held, empty for none."""
        return self.key_of(self.request) if self.request is not None else ""

    @property
    def model(self) -> str:
        """The name of the model that is held, empty for none."""
        return self.request.model if self.request is not None else ""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel on each axis; 1 while no model is held."""
        return self.loaded.scale if self.loaded is not None else 1

    def is_held(self, request: Load) -> bool:
        """Whether the model that is held is the one that is asked for."""
        if self.loaded is None or self.key_of(request) != self.key:
            return False
        return not self.own_keys or alike(request.weights, self.loaded.weights)

    def is_coming(self, request: Load) -> bool:
        """Whether the model that is on its way is the one that is asked for, as far as that is known yet."""
        coming = self.coming
        if coming is None or self.key_of(request) != self.key_of(coming):
            return False
        return not self.own_keys or alike(request.weights, coming.weights)

    def answer(self, request: Load, seconds: float) -> Loaded:
        """What is said to a host whose model is held; ``seconds``: what it had to wait for."""
        if self.loaded is None:
            raise ValueError("no model is held")
        return replace(self.loaded, id=request.id, key=request.key, seconds=seconds)

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


def alike(mine: str, yours: str) -> bool:
    """Whether two digests of weights can be of the same; who knows none takes any."""
    return not mine or not yours or mine == yours
