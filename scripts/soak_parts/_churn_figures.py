"""What the churn measures of a process, and whether a series of figures rises: robust slopes, each with its bound.

A slope is the median of those between any two points that can be compared (Theil and Sen): of one process, in the same
state. One that was replaced begins a series of its own, and single outliers move nothing.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from _processes import PROC, lives

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TICKS = os.sysconf("SC_CLK_TCK")
# Fewer pairs of points say nothing about a slope.
LEAST_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Weight:
    """``private``: bytes that are this process's alone, shared memory by its share; libraries are not counted."""

    private: int
    descriptors: int
    threads: int


def weigh(pid: int) -> Weight:
    """OSError where there is no such process any more."""
    lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    held = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Weight(
        private=1024 * (held["Pss_Anon"] + held["Pss_Shmem"]),
        descriptors=sum(1 for _ in (PROC / str(pid) / "fd").iterdir()),
        threads=sum(1 for _ in (PROC / str(pid) / "task").iterdir()),
    )


def age(pid: int) -> float:
    """Seconds since a process began."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / TICKS


def children(pid: int) -> list[int]:
    """The processes that one has started, from any thread, and that have not ended."""
    found: list[int] = []
    for task in (PROC / str(pid) / "task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return [child for child in found if lives(child)]


@dataclass(frozen=True, slots=True)
class Bound:
    """A slope of at most ``rate``, in ``unit``, and ``slack`` of the figure itself over the whole of a series.

    ``each``: how many of the abscissa's units make one of the slope's.
    """

    unit: str
    rate: float
    slack: float
    scale: float = 1.0
    each: float = 1.0


KB_A_MINUTE = ("kB/min", 1 / 1024, 60.0)
AN_HOUR = ("an hour", 1.0, 3600.0)


def memory(rate: float, slack: float) -> Bound:
    """kB a minute, and kB in all."""
    unit, scale, each = KB_A_MINUTE
    return Bound(unit, rate, slack, scale, each)


def count(slack: float) -> Bound:
    """Things that do not become more, but for ``slack`` of them in all."""
    unit, scale, each = AN_HOUR
    return Bound(unit, 0.0, slack, scale, each)


@dataclass
class Series:
    """One figure of one role: points (x, value) by what can be compared, a process in a state."""

    name: str
    bound: Bound
    points: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def by_jobs(self) -> bool:
        """Whether x are jobs; else seconds."""
        return self.bound.each == 1.0

    def add(self, state: str, x: float, value: float) -> None:
        self.points[state].append((x, value * self.bound.scale))

    def verdict(self, warm: float) -> Verdict:
        """What became of it from ``warm`` on."""
        kept = [[point for point in points if point[0] >= warm] for points in self.points.values()]
        slopes = [slope for points in kept for slope in _slopes(points)]
        if len(slopes) < LEAST_PAIRS:
            return Verdict(self.name, self.bound)
        span = max(points[-1][0] - points[0][0] for points in kept if points) / self.bound.each
        last = max(points[-1] for points in kept if points)[1]
        slope = statistics.median(slopes) * self.bound.each
        return Verdict(self.name, self.bound, slope, self.bound.rate + self.bound.slack / span, last, len(slopes))


def _slopes(points: Sequence[tuple[float, float]]) -> Iterator[float]:
    for index, (x, value) in enumerate(points):
        for later, then in points[index + 1 :]:
            if later > x:
                yield (then - value) / (later - x)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A slope beside the most that it may be; ``pairs`` 0: too few points to tell."""

    name: str
    bound: Bound
    slope: float = 0.0
    most: float = 0.0
    last: float = 0.0
    pairs: int = 0

    @property
    def judged(self) -> bool:
        return self.pairs > 0

    @property
    def right(self) -> bool:
        return self.slope <= self.most

    def line(self) -> str:
        if not self.judged:
            return f"{self.name:<34} too few points to tell"
        said = "ok" if self.right else "RISES"
        unit = self.bound.unit
        return f"{self.name:<34} {self.slope:+10.2f} {unit:<8} at most {self.most:9.2f}, last {self.last:10.0f}  {said}"
