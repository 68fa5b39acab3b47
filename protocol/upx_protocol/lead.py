"""Who holds the socket: the main thread while it has nothing to compute, the I/O thread once computing takes long.

    main thread   listens ──batch──> computes ──> answers, listens …
    I/O thread               stands by, and listens when the main thread has been away for ``PATIENCE_S``

So a batch that is computed in no time is taken, computed and answered by one thread, without a hand-over; and a worker
answers all the same while it computes for long. A lock says whose the socket is: libzmq's sockets may move from one
thread to another over a lock, and never be touched by two.
"""

from __future__ import annotations

import threading
import time
from typing import Callable

#: A main thread that has not listened for so long is computing, and the I/O thread listens in its place.
PATIENCE_S = 0.01
#: The I/O thread looks that often only while there is work, and for so long after the last.
WATCHFUL_S = 1.0


class Lead:
    """A lock with two who want it. ``ring`` wakes whoever listens; ``away``: the main thread does not."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.away = True
        self._ring = ring
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._work.set()
        self._since = 0.0

    # The main thread

    def take(self) -> None:
        """Listen from here on; the I/O thread lets go as soon as it can."""
        self.away = False
        if not self._lock.acquire(blocking=False):
            self._ring()
            self._lock.acquire()

    def leave(self) -> None:
        """Begin to compute: nobody listens until the main thread is back, or was away for too long."""
        self._since, self.away = time.monotonic(), True
        self._lock.release()
        if not self._work.is_set():
            self._work.set()

    def part(self) -> None:
        """Listen never again: the I/O thread takes over at once."""
        self._since, self.away = 0.0, True
        self._lock.release()
        self._work.set()

    def seize(self) -> bool:
        """Hold the socket for a moment, until ``drop``; False where the I/O thread has it."""
        return self._lock.acquire(blocking=False)

    # Whoever holds it

    def drop(self) -> None:
        """Give the socket back."""
        self._lock.release()

    # The I/O thread

    def stand_by(self) -> None:
        """Wait until the main thread has been away for too long, then hold the socket."""
        while True:
            self._work.wait()
            quiet = time.monotonic() + WATCHFUL_S
            while time.monotonic() < quiet:
                if self.away:
                    quiet = time.monotonic() + WATCHFUL_S
                    # Never waiting for it: a main thread that is back by now is not to find it taken next time.
                    if time.monotonic() - self._since >= PATIENCE_S and self._lock.acquire(blocking=False):
                        return
                time.sleep(PATIENCE_S)
            self._work.clear()
            if self.away:
                # It left in this very moment, and saw that nobody had to be woken.
                self._work.set()
