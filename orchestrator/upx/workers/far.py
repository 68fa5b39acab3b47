"""Workers of other machines: nothing is started or ended there, they are reached, again and again where need be."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.workers.launch import Found
from upx.workers.process import Process

if TYPE_CHECKING:
    from upx.workers.endpoints import ClientKeys
    from upx.workers.plan import Timeouts
    from upx.workers.registry import WorkerInfo

FIRST_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class FarSite:
    """One worker of a box: its name for people, its address, the box's pinned key, and what we show. Keys in Z85."""

    box: str
    endpoint: str
    server_key: str
    keys: ClientKeys

    @property
    def name(self) -> str:
        """What people call the worker: "attic:7600"."""
        return f"{self.box}:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.endpoint.rpartition(":")[2])

    def beside(self, port: int) -> FarSite:
        """Another worker of the same box."""
        return FarSite(self.box, f"{self.endpoint.rpartition(':')[0]}:{port}", self.server_key, self.keys)


class FarProcess(Process):
    """Stands for a process that cannot be seen from here: it never ends, and nobody signals it."""

    def _look(self) -> str:
        return ""

    def signal(self, number: int) -> None:
        """Nothing: ending it is its own machine's business."""


@dataclass(slots=True)
class Seat:
    """A place that a pool has for a worker. ``site``: None on this machine; ``served``: it did before.

    ``reached``: the worker that last served there, -1 for none yet, and its process on its own machine.
    """

    site: FarSite | None = None
    served: bool = False
    taken: bool = False
    freed: float = 0.0
    reached: tuple[int, int] = (-1, 0)


class FarLaunch:
    """One search, as ``launch.Launch`` is one here: tries with growing pauses for as long as there is hope.

    ``due``: when the next try may be; nothing wakes anybody for it.
    """

    def __init__(self, seat: Seat, site: FarSite, timeouts: Timeouts) -> None:
        self._seat, self._site, self._timeouts = seat, site, timeouts
        self.process: Process | None = None
        self._pause = FIRST_PAUSE_S
        self._began = self.due = 0.0

    def poll(self, now: float) -> Found | None:
        """Where to connect, once it is time to."""
        self._began = self._began or now
        if now < self.due:
            return None
        # So that many hosts of a box that comes back do not knock at the same moment.
        self.due = now + self._pause * random.uniform(0.5, 1.5)  # noqa: S311  no secret
        self._pause = min(2 * self._pause, self._timeouts.far_backoff_most)
        site = self._site
        return Found(site.name, site.endpoint, site.server_key, FarProcess(0, 0), adopted=False, keys=site.keys)

    def patient(self, now: float) -> bool:
        """Whether it is worth another try: longer for a box that was there before."""
        return now - self._began < (self._timeouts.away if self._seat.served else self._timeouts.reach)

    def heard(self, now: float) -> None:
        """It gets on with a load, which may take hours: there is hope, from now on."""
        self._began = now

    def again(self) -> None:
        """Try again after the pause."""

    def bury(self, bound: WorkerInfo | None) -> None:
        """There is nothing to sweep here."""
