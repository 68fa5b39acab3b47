"""The thread that calls back: what a caller does in a callback cannot stop the I/O thread.

A ``Promise`` is a future that the I/O thread may complete itself: whoever waits for it is woken at once, and its
callbacks, which are a caller's code, are the courier's to call.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("upx.workers")
T = TypeVar("T")


class Courier:
    """Calls what it is given, in order, on a thread of its own."""

    def __init__(self) -> None:
        self._parcels: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="upx-callbacks", daemon=True)
        self._gate = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def deliver(self, parcel: Callable[[], None]) -> None:
        """Call it soon. Any thread may ask; once the courier is closed, it is that thread that calls."""
        with self._gate:
            if not self._closed:
                self._parcels.put(parcel)
                return
        _call(parcel)

    def close(self, *, timeout: float) -> None:
        """Deliver what is left, then end; waits, unless a callback itself asks for the end."""
        with self._gate:
            self._closed = True
            self._parcels.put(None)
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while (parcel := self._parcels.get()) is not None:
            _call(parcel)
            # It holds a result, whose memory a worker may be waiting for.
            del parcel


class Promise(Future[T], Generic[T]):
    """A future that is running, so that nobody can cancel it, and whose callbacks ``courier`` calls."""

    def __init__(self, courier: Courier) -> None:
        super().__init__()
        self._courier = courier
        self.set_running_or_notify_cancel()

    def add_done_callback(self, fn: Callable[[Future[T]], Any]) -> None:
        """Have ``fn`` called with this future once it is done: at once where it is, else by the courier."""
        if self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda done: self._courier.deliver(partial(fn, done)))


def _call(parcel: Callable[[], None]) -> None:
    try:
        parcel()
    except Exception:
        log.exception("a callback failed")
