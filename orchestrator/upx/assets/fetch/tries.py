"""How often a source is tried, and how long it is left alone in between."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from upx.assets.fetch.failures import NETWORK_HINT, DropError, FailedError, UnreachableError

if TYPE_CHECKING:
    from upx.assets.fetch.network import Network

MAX_PAUSE_S = 20.0
# In all: a server that gives a byte with each connection makes progress, too.
MAX_TRIES = 1000
# A machine without a network should say so in seconds.
REACH_TRIES = 3
REACH_S = 4.0


class Tries:
    """How often in a row nothing was gained, and how long to wait before the next."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._best = 0
        self._all = 0
        self._spent = 0
        self._unreached = 0
        self._unreached_since = 0.0

    def after(self, drop: DropError, size: int) -> float:
        """Seconds to wait after a drop that left ``size`` bytes; FailedError when it was the last."""
        if size > self._best and not drop.slow:
            self._spent = self._unreached = 0
        self._best = max(self._best, size)
        self._spent += 1
        self._all += 1
        if isinstance(drop, UnreachableError):
            self._count_unreached(drop)
        if self._spent >= self._network.tries:
            raise FailedError(f"{drop.why}, {self._spent} times in a row", kind="network") from drop
        if self._all >= MAX_TRIES:
            raise FailedError(f"{drop.why}, given up after {self._all} tries", kind="network") from drop
        pause = min(self._network.backoff * 2 ** (self._spent - 1), MAX_PAUSE_S)
        # Not all who were sent away come back at the same moment.
        return drop.pause if drop.pause is not None else pause * (0.5 + random.random() / 2)  # noqa: S311

    def _count_unreached(self, drop: UnreachableError) -> None:
        now = time.monotonic()
        self._unreached_since = self._unreached_since if self._unreached else now
        self._unreached += 1
        if self._unreached >= REACH_TRIES or now - self._unreached_since > REACH_S:
            raise FailedError(f"no network, or {drop.why}", hint=NETWORK_HINT, kind="network") from drop
