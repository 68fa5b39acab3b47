"""How fast workers are, from what they say of themselves: pure counting, by each worker's own clock.

Tiles of different sizes cannot be compared, so a rate is in megapixels of input; tiles are counted beside it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx_protocol.messages import Pong

# A rate is an average over at least so long, or over the last two answers: slow tiles would make it leap.
WINDOW_S = 10.0
# Two answers that are closer tell nothing; a worker elsewhere may send whatever it likes.
LEAST_S = 1e-3
FEWEST = 2
LARGEST = 2**53
MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Pace:
    """Over the last seconds: megapixels of input and tiles a second; ``busy``: the share of the time at work, of 1."""

    megapixels: float
    tiles: float
    busy: float

    def rounded(self) -> Pace:
        """With as many digits as a record has."""
        return Pace(round(self.megapixels, 6), round(self.tiles, 3), round(self.busy, 3))


def total(paces: Sequence[Pace]) -> Pace:
    """Of all workers together: the sums, and the mean of how busy they are."""
    return Pace(
        megapixels=sum((each.megapixels for each in paces), 0.0),
        tiles=sum((each.tiles for each in paces), 0.0),
        busy=sum((each.busy for each in paces), 0.0) / max(1, len(paces)),
    )


@dataclass(slots=True)
class Paces:
    """What was heard of each worker, by its name, as far back as an average needs it."""

    _heard: dict[str, deque[Pong]] = field(default_factory=dict[str, "deque[Pong]"])

    def hear(self, pongs: dict[str, Pong | None]) -> None:
        """Take in a sample. Who is not in it, does not answer, or is another process by now, begins anew."""
        for name in [name for name in self._heard if pongs.get(name) is None]:
            del self._heard[name]
        for name, pong in pongs.items():
            if pong is not None and pong.age_s > 0:
                self._add(self._heard.setdefault(name, deque()), pong)

    def _add(self, heard: deque[Pong], pong: Pong) -> None:
        if heard and (pong.age_s < heard[-1].age_s or pong.tiles_done < heard[-1].tiles_done):
            heard.clear()
        if heard and pong.age_s == heard[-1].age_s:
            return
        heard.append(pong)
        # The oldest goes as soon as the next one is old enough to begin with.
        while len(heard) > FEWEST and heard[1].age_s <= pong.age_s - WINDOW_S:
            heard.popleft()

    def of(self, name: str) -> Pace | None:
        """How fast a worker was; None before it has answered twice."""
        heard = self._heard.get(name)
        if heard is None or heard[-1].age_s - heard[0].age_s < LEAST_S:
            return None
        first, last = heard[0], heard[-1]
        seconds = last.age_s - first.age_s
        return Pace(
            megapixels=counted(last.pixels_done - first.pixels_done) / MEGA / seconds,
            tiles=counted(last.tiles_done - first.tiles_done) / seconds,
            busy=min(1.0, max(0.0, (last.busy_s - first.busy_s) / seconds)),
        )


def counted(value: float) -> float:
    """A count or a time as a worker may really have it: none is negative, or larger than anybody can count."""
    return min(max(0.0, float(value)), float(LARGEST))
