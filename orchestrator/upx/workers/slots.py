"""Which runs of units of a ring are free: first fit from the bottom, so that few pages are ever touched. Pure."""

from __future__ import annotations

from bisect import bisect


class Slots:
    """Free runs as (start, length), sorted and never side by side; whatever is not free is somebody's."""

    def __init__(self, units: int) -> None:
        self._units = units
        self._free: list[tuple[int, int]] = [(0, units)]
        self._taken: dict[int, int] = {}

    @property
    def free(self) -> list[tuple[int, int]]:
        """The free runs, from the bottom."""
        return list(self._free)

    @property
    def idle(self) -> bool:
        """Whether nothing is taken."""
        return not self._taken

    def take(self, units: int) -> int | None:
        """The first unit of a run of so many; None where no run is long enough."""
        for index, (start, length) in enumerate(self._free):
            if length >= units:
                self._free[index : index + 1] = [(start + units, length - units)] if length > units else []
                self._taken[start] = units
                return start
        return None

    def give(self, start: int) -> None:
        """Give back what ``take`` gave; KeyError for anything else."""
        units = self._taken.pop(start)
        index = bisect(self._free, (start, 0))
        end = start + units
        if index < len(self._free) and self._free[index][0] == end:
            end += self._free.pop(index)[1]
        if index and sum(self._free[index - 1]) == start:
            index -= 1
            start = self._free.pop(index)[0]
        self._free.insert(index, (start, end - start))
