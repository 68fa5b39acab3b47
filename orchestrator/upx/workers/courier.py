"""The thread that completes futures and calls back: what a caller does in a callback cannot stop the I/O thread."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("upx.workers")


class Courier:
    """Calls what it is given, in order, on a thread of its own that starts with the first delivery."""

    def __init__(self) -> None:
        self._parcels: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="upx-callbacks", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def deliver(self, parcel: Callable[[], None]) -> None:
        """Call it soon. Any thread may ask."""
        self._parcels.put(parcel)

    def close(self, *, timeout: float) -> None:
        """Deliver what is left, then end; waits, unless a callback itself asks for the end."""
        self._parcels.put(None)
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while (parcel := self._parcels.get()) is not None:
            try:
                parcel()
            except Exception:
                log.exception("a callback failed")
            # It holds a result, whose memory a worker may be waiting for.
            del parcel
