"""The bytes of one connection as they come: every wait ends with a cancel, with silence, or with a trickle."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

from upx.assets.fetch.failures import DropError
from upx.errors import CancelledError

if TYPE_CHECKING:
    import socket
    import threading

# How long a read may not notice a cancel.
SLICE_S = 0.1
CANCELLED = "cancelled; what came so far is kept"
# Bytes a second, over one time-out of waiting: a server that sends less only pretends to be alive.
FLOOR = 1024
# What a server may send beside the file: headers, chunk sizes and trailers, each of which could go on for ever.
OVERHEAD = 512 * 1024


class Wire(io.RawIOBase):
    """A socket's incoming side. ``allow`` renews what may come before the reader asks again."""

    def __init__(self, sock: socket.socket, *, timeout: float, cancel: threading.Event) -> None:
        super().__init__()
        self._sock = sock
        self._timeout = timeout
        self._cancel = cancel
        self._allowed = OVERHEAD
        self._waited = 0.0
        self._came = 0
        sock.settimeout(min(SLICE_S, timeout))

    def allow(self, count: int) -> None:
        """Let ``count`` bytes of the file pass, and as much overhead as an answer may have."""
        self._allowed = count + OVERHEAD

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """What is there, at most a buffer full; DropError after a silence or a trickle."""
        began = time.monotonic()
        while True:
            if self._cancel.is_set():
                raise CancelledError(CANCELLED)
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                if time.monotonic() - began >= self._timeout:
                    raise DropError(f"nothing came for {self._timeout:g} s") from None
            else:
                self._account(count, time.monotonic() - began)
                return count

    def _account(self, count: int, waited: float) -> None:
        self._allowed -= count
        if self._allowed < 0:
            raise DropError("the server sends headers without end")
        self._came += count
        self._waited += waited
        if self._waited < self._timeout:
            return
        if self._came < FLOOR * self._waited:
            raise DropError(f"less than {FLOOR} bytes a second came", slow=True)
        self._waited, self._came = 0.0, 0


class PatientSocket:
    """What ``http.client`` needs of a socket; who made it closes it."""

    def __init__(self, sock: socket.socket, *, timeout: float, cancel: threading.Event) -> None:
        self._sock = sock
        self._timeout = timeout
        self.wire = Wire(sock, timeout=timeout, cancel=cancel)

    def sendall(self, data: Any) -> None:
        """Send a request, which is small: it fits what the kernel takes at once."""
        self._sock.settimeout(self._timeout)
        try:
            self._sock.sendall(data)
        finally:
            self._sock.settimeout(min(SLICE_S, self._timeout))

    def makefile(self, _mode: str = "rb") -> io.BufferedReader:
        """The incoming side."""
        return io.BufferedReader(self.wire, 8192)

    def close(self) -> None:
        """Nothing: an answer may still be read."""

    def hang_up(self) -> None:
        """Close it."""
        self._sock.close()
