"""Whose turn it is: whoever was given the least so far. Time that somebody spent away earns nothing. Pure."""

from __future__ import annotations

from typing import Dict, Iterable

#: Those who left and are remembered: as many as a worker has hosts at a time. One who is not gains a turn.
MAX_AWAY = 64


class Turns:
    """What each was given, by name, in any measure."""

    def __init__(self) -> None:
        self._given: Dict[str, int] = {}
        # What those had who left with more than the level: back at once, and at the level again, they had every turn.
        self._away: Dict[str, int] = {}
        # What the last one that was chosen had until then: who comes back begins there, not at nothing.
        self._level = 0

    def come(self, who: str) -> None:
        """Somebody waits who did not."""
        self._given[who] = max(self._given.get(who, 0), self._away.pop(who, 0), self._level)

    def choose(self, waiting: Iterable[str]) -> str:
        """Whose turn it is, of those who wait; ValueError where nobody does."""
        chosen = min(waiting, key=lambda who: self._given.get(who, 0))
        self._level = max(self._level, self._given.get(chosen, 0))
        if self._away:
            self._away = {away: given for away, given in self._away.items() if given > self._level}
        return chosen

    def give(self, who: str, amount: int) -> None:
        """Somebody is given so much more."""
        self._given[who] = self._given.get(who, 0) + amount

    def forget(self, who: str) -> None:
        """Somebody has left, and is remembered until the others have been given as much."""
        given = self._given.pop(who, 0)
        if given > self._level:
            self._away[who] = given
            if len(self._away) > MAX_AWAY:
                del self._away[min(self._away, key=self._away.__getitem__)]
