"""Tell the caller how far a file is, not more often than a person can read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from upx.assets.fetch.want import FetchProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.assets.fetch.want import State, Want

EVERY_S = 0.1


class Telling:
    """What was said last about one want."""

    def __init__(self, want: Want, report: Callable[[FetchProgress], None]) -> None:
        self._want = want
        self._report = report
        self._state: State = "waiting"
        self._next = 0.0
        self.done = 0
        self.total = want.size or want.about
        self.resumed = 0

    def say(self, state: State, note: str = "") -> None:
        """Report a state, at once."""
        self._state = state
        self._next = time.monotonic() + EVERY_S
        want, total = self._want, max(self.total, self.done) if self.total else 0
        self._report(FetchProgress(want.key, want.name, self.done, total, self.resumed, state, note))

    def fetched(self, done: int) -> None:
        """Report bytes that came, now and then."""
        self._now_and_then("fetching", done)

    def checked(self, done: int) -> None:
        """Report bytes that were there already, now and then."""
        self._now_and_then("checking", done)

    def _now_and_then(self, state: State, done: int) -> None:
        self.done = done
        if state != self._state or time.monotonic() >= self._next:
            self.say(state)
