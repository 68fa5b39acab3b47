"""Run what cannot be interrupted in a thread that can be left: name look-ups, connecting, somebody else's library."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from upx.assets.fetch.wire import CANCELLED, SLICE_S
from upx.errors import CancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class LeftError(Exception):
    """It did not end in time."""


def aside(
    work: Callable[[], T], *, seconds: float, cancel: threading.Event, drop: Callable[[T], None] | None = None
) -> T:
    """What ``work`` returns or raises; CancelledError or LeftError when it is left, and then ``drop`` gets it."""
    return _Aside(work, drop).wait(seconds, cancel)


class _Aside(Generic[T]):
    def __init__(self, work: Callable[[], T], drop: Callable[[T], None] | None) -> None:
        self._work = work
        self._drop = drop
        self._results: list[T] = []
        self._error: Exception | None = None
        self._left = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="upx-aside", daemon=True).start()

    def wait(self, seconds: float, cancel: threading.Event) -> T:
        deadline = time.monotonic() + seconds
        try:
            while not (self._ended.wait(SLICE_S) or cancel.is_set() or time.monotonic() > deadline):
                pass
        finally:
            with self._lock:
                self._left = not self._ended.is_set()
        if self._left:
            if cancel.is_set():
                raise CancelledError(CANCELLED)
            raise LeftError
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self._error = error
        with self._lock:
            if self._left and self._drop is not None:
                for result in self._results:
                    self._drop(result)
            self._ended.set()
