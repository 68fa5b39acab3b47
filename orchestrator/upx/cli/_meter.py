"""How far a batch is and how long it will still take: pure counting, the clock is given."""

from __future__ import annotations

from dataclasses import dataclass, field

# The rate follows the last ten tiles or so; the first ones count as an average, or one slow start would rule.
WEIGHT = 0.2


@dataclass(slots=True)
class Meter:
    """Tiles of a batch of ``pictures``; times in seconds of any one clock."""

    pictures: int
    finished: int = 0
    tiles_done: dict[int, int] = field(default_factory=dict[int, int])
    tiles: dict[int, int] = field(default_factory=dict[int, int])
    seconds_per_tile: float = 0.0
    _samples: int = 0
    _last: float | None = None

    def update(self, picture: int, done: int, total: int, now: float) -> None:
        """Count ``done`` of ``total`` tiles of one picture."""
        new = done - self.tiles_done.get(picture, 0)
        self.tiles_done[picture], self.tiles[picture] = done, total
        # A picture that starts over with smaller tiles counts from where it is.
        if new > 0 and self._last is not None:
            self._sample((now - self._last) / new)
        if new > 0 or self._last is None:
            self._last = now

    def finish(self, picture: int) -> None:
        """A picture has ended, whole or not."""
        self.finished += 1
        self.tiles_done[picture] = self.tiles.get(picture, 0)

    def eta(self, now: float) -> float | None:
        """Seconds until the end; None before the first tile has told."""
        if not self._samples or self._last is None:
            return None
        return max(0.0, self._remaining() * self.seconds_per_tile - (now - self._last))

    def _remaining(self) -> float:
        known = [total for total in self.tiles.values() if total]
        left = sum(self.tiles.values()) - sum(self.tiles_done.values())
        unseen = self.pictures - max(len(self.tiles), self.finished)
        return left + unseen * (sum(known) / len(known) if known else 0.0)

    def _sample(self, seconds: float) -> None:
        self._samples += 1
        weight = max(WEIGHT, 1 / self._samples)
        self.seconds_per_tile += weight * (seconds - self.seconds_per_tile)
