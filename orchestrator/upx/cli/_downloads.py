"""How far downloads are, each and all together: pure counting, the clock is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upx.cli._render import size_text, time_text

if TYPE_CHECKING:
    from upx.assets.fetch import FetchProgress

# The rate is of the last seconds: a line that slows down is seen to.
WINDOW_S = 5.0
FEWEST = 2
_ENDED = {"done", "failed"}


@dataclass(slots=True)
class Downloads:
    """What was heard of every download, by its key; times in seconds of any one clock."""

    heard: dict[str, FetchProgress] = field(default_factory=dict[str, "FetchProgress"])
    _samples: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def update(self, progress: FetchProgress, now: float) -> None:
        """Hear one report."""
        self.heard[progress.key] = progress
        self._samples.append((now, self.done))
        while len(self._samples) > FEWEST and now - self._samples[0][0] > WINDOW_S:
            del self._samples[0]

    @property
    def done(self) -> int:
        """Bytes of all."""
        return sum(each.done for each in self.heard.values())

    @property
    def total(self) -> int:
        """Bytes of all whose size is known."""
        return sum(max(each.total, each.done) for each in self.heard.values())

    @property
    def running(self) -> bool:
        """Whether one has not ended yet."""
        return any(each.state not in _ENDED for each in self.heard.values())

    def rate(self) -> float:
        """Bytes a second; 0 while nothing is known."""
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return max(0.0, (after - before) / (last - first)) if last > first else 0.0

    def line(self) -> str:
        """All of them in one line, for a log."""
        known = all(each.total for each in self.heard.values())
        size = size_text(self.done) + (f" of {size_text(self.total)}" if known else "")
        files = f" of {len(self.heard)} files" if len(self.heard) > 1 else ""
        return f"fetching weights: {size}{files}{self.pace()}"

    def pace(self) -> str:
        """``, 12 MiB/s, about 40 s left``, or nothing where nobody knows yet."""
        rate = self.rate()
        if not rate or not self.running:
            return ""
        left = (self.total - self.done) / rate
        eta = f", about {time_text(max(1.0, left))} left" if self.total > self.done else ""
        return f", {size_text(int(rate))}/s{eta}"


def words(progress: FetchProgress) -> str:
    """One download in words."""
    note = f" ({progress.note})" if progress.note else ""
    match progress.state:
        case "waiting":
            return f"{progress.name}: another process fetches it"
        case "resolving":
            return f"{progress.name}: asking where it is"
        case "retrying":
            return f"{progress.name}: trying again{note}"
        case "checking":
            return f"{progress.name}: checking what is here"
        case "failed":
            return f"{progress.name}: failed{note}"
        case _:
            resumed = f", {size_text(progress.resumed)} were here" if progress.resumed else ""
            return f"{progress.name}{resumed}"
