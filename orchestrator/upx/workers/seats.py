"""The places that a pool has for workers: so many on this machine, one for each worker of a box.

Whose number sits where is decided here, and when a box that was given up is worth another try.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from upx.workers.far import FarLaunch, FarSite, Seat
from upx.workers.words import MOST_PORTS, told_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upx.workers.launch import Launch
    from upx.workers.plan import LoadPlan, Timeouts

# A box that could not be had is asked again after so long, while others work.
AGAIN_S = 30.0


class Seats:
    """``search`` makes a launch on this machine; ``precision`` is what boxes are asked for."""

    def __init__(
        self,
        plan: LoadPlan,
        timeouts: Timeouts,
        search: Callable[[], Launch],
        *,
        local: int,
        sites: Sequence[FarSite] = (),
        precision: str = "auto",
    ) -> None:
        self._plan, self._timeouts, self._search, self._precision = plan, timeouts, search, precision
        self._seats = [*(Seat() for _ in range(local)), *(Seat(site) for site in sites)]
        self._taken: dict[int, Seat] = {}
        self._weights = plan.weights

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def varied(self) -> bool:
        """Whether any is on another machine."""
        return any(seat.site is not None for seat in self._seats)

    def take(self, worker: int) -> tuple[LoadPlan, Launch | FarLaunch]:
        """A seat for a worker: what it is to load, and the search for it. What was given up for longest goes first."""
        free = [seat for seat in self._seats if not seat.taken]
        seat = min(free, key=lambda each: each.freed) if free else Seat()
        seat.taken = True
        self._taken[worker] = seat
        if seat.site is None:
            return self._plan, self._search()
        launch = FarLaunch(seat, seat.site, self._timeouts)
        place = self._plan.at(seat.site.box, precision=self._precision)
        return replace(place, weights=self._weights, heard=launch.heard), launch

    def served(self, worker: int, weights: str) -> bool:
        """A worker serves: its box is there. False where its weights are not those of the others.

        From the first on everybody is asked for its weights, and says so where they are others.
        """
        seat = self._taken.get(worker)
        if seat is not None:
            seat.served, seat.freed = True, 0.0
        self._weights = self._weights or weights
        return not weights or weights == self._weights

    def explained(self, worker: int, pid: int) -> tuple[int, bool] | None:
        """A worker of a box is reached: who had its seat before, and whether that one's process has ended since."""
        seat = self._taken.get(worker)
        if seat is None or seat.site is None:
            return None
        (before, process), seat.reached = seat.reached, (worker, pid)
        return (before, process != pid) if before not in {-1, worker} else None

    def free(self, worker: int, now: float) -> None:
        """A worker is gone."""
        seat = self._taken.pop(worker, None)
        if seat is not None:
            seat.taken, seat.freed = False, now

    def neighbours(self, worker: int, ports: Sequence[int]) -> bool:
        """A box has told of its workers; whether any of them is new."""
        seat = self._taken.get(worker)
        if seat is None or seat.site is None:
            return False
        known = [each.site for each in self._seats if each.site is not None]
        room = MOST_PORTS - sum(site.box == seat.site.box for site in known)
        told = map(seat.site.beside, told_ports(ports))
        new = [site for site in told if site not in known][: max(0, room)]
        self._seats += [Seat(site) for site in new]
        return bool(new)

    def overdue(self, now: float) -> bool:
        """Whether a box that was given up is worth another try."""
        found = [seat for seat in self._seats if seat.site is not None and not seat.taken and seat.freed]
        due = [seat for seat in found if now - seat.freed > AGAIN_S]
        for seat in due:
            seat.freed = now
        return bool(due)
