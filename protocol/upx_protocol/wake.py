"""Wakes the I/O thread: from the compute thread, from a signal, and when a tied worker's host dies."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upx_protocol.options import WorkerOptions

WORK, ORPHANED = b"\0", b"\xff"
TERM = bytes([signal.SIGTERM])


class Wake:
    """A pair of sockets, since a poller on Windows takes nothing else. Each byte says why."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def ring(self, why: bytes = WORK) -> None:
        """Wake the reader; a full pipe wakes it as well, so that is no loss for ``WORK``."""
        try:
            self._writer.send(why)
        except BlockingIOError:
            return
        except OSError:
            # The loop has ended and closed both ends; nobody is left to wake.
            return

    def reasons(self) -> bytes:
        """Why it was woken since the last call; to be called when ``reader`` has something."""
        try:
            return self.reader.recv(65_536)
        except BlockingIOError:
            return b""

    def catch_signals(self) -> None:
        """SIGTERM wakes the loop, even while the main thread is inside a long C call; main thread only.

        Ctrl-C in a terminal reaches the whole process group, but ending a worker is its host's decision.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _noted)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def watch_tie(self, options: WorkerOptions) -> None:
        """Ring ``ORPHANED`` when the pipe that the host holds open ends. A blocked thread: the same on all systems."""
        if options.tie_fd < 0:
            return
        fd = _inherited(options.tie_fd)
        threading.Thread(target=self._await_end, args=(fd,), name="tie", daemon=True).start()

    def _await_end(self, fd: int) -> None:
        try:
            while os.read(fd, 1):
                continue
        except OSError:
            # A pipe that cannot be read is a pipe whose host is gone.
            pass
        self.ring(ORPHANED)

    def close(self) -> None:
        """Close both ends."""
        self.reader.close()
        self._writer.close()


def _noted(_signum: int, _frame: object) -> None:
    """A Python handler must exist for the wake-up descriptor to be written."""


def _inherited(fd: int) -> int:
    """On Windows a handle was inherited, elsewhere a descriptor."""
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.open_osfhandle(fd, os.O_RDONLY)
    return fd
