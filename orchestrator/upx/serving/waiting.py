"""Wait for what concerns a box: a signal, the end of a process, or a time."""

from __future__ import annotations

import select
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


class Bell:
    """Rings with every signal that has a handler. Main thread only.

    The interpreter itself writes to the socket, so that no signal is missed between a look and a wait.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = -1

    def __enter__(self) -> Self:
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._before)
        self._reader.close()
        self._writer.close()

    def wait(self, fds: Iterable[int], seconds: float) -> None:
        """Return with a signal, when one of ``fds`` can be read, or after so long."""
        poller = select.poll()
        for fd in (self._reader.fileno(), *fds):
            poller.register(fd, select.POLLIN)
        poller.poll(seconds * 1000)
        with suppress(BlockingIOError):
            self._reader.recv(65_536)
