"""Measure a link with bare sockets: round trips, what TCP carries, how many datagrams arrive and how fast.

Run as a script it is the far side, in a box: UDP is echoed or counted, TCP drained or filled. The functions are the
near side, called by a thread at the host's end.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Box

CONTROL, ECHO, COUNT = 7700, 7701, 7702
PIECE = bytes(1 << 20)
# With the headers of IP and UDP a packet of 1,500 bytes.
DATAGRAM = 1472
PACKET = 1500
PATIENCE_S = 20.0


# ---------------------------------------------------------------------------------------------- near side


@contextlib.contextmanager
def probed(box: Box) -> Iterator[str]:
    """The far side running in a box; its address."""
    with box.popen([sys.executable, "-I", Path(__file__)], stdout=subprocess.PIPE, text=True) as process:
        try:
            process.stdout.readline()
            yield box.address
        finally:
            process.kill()


def round_trips(address: str, count: int) -> list[float]:
    """Seconds that datagrams took there and back, one at a time; those that came."""
    seconds = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.settimeout(1.0)
        for number in range(count):
            begin, message = time.perf_counter(), number.to_bytes(4, "big")
            near.sendto(message, (address, ECHO))
            with contextlib.suppress(TimeoutError):
                while near.recv(16) != message:
                    pass
                seconds.append(time.perf_counter() - begin)
    return seconds


def sent(address: str, size: int) -> float:
    """Bits a second that TCP carries to the box, counted there from the first byte to the last."""
    with _asked(address, f"drain {size}") as near:
        left = size
        while left > 0:
            left -= near.send(PIECE[:left])
        return 8 * size / float(near.makefile().readline())


def received(address: str, size: int) -> float:
    """Bits a second that TCP carries from the box, counted here from the first byte to the last."""
    with _asked(address, f"fill {size}") as near:
        return 8 * size / _drain(near, size)


def arrived(address: str, count: int, rate: float) -> tuple[int, float]:
    """Of ``count`` datagrams sent at ``rate`` bits a second: how many reached the box, and bits a second there."""
    _ask(address, "heard")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        begin, message = time.perf_counter(), bytes(DATAGRAM)
        for number in range(count):
            # A millisecond's worth may go at once: sleeping for less is not worth it.
            if (early := begin + number * PACKET * 8 / rate - time.perf_counter()) > 0.001:
                time.sleep(early)
            near.sendto(message, (address, COUNT))
    time.sleep(0.5)
    heard, seconds = _ask(address, "heard").split()
    return int(heard), 8 * PACKET * int(heard) / float(seconds)


@contextlib.contextmanager
def _asked(address: str, line: str) -> Iterator[socket.socket]:
    with socket.create_connection((address, CONTROL), timeout=PATIENCE_S) as near:
        near.sendall(f"{line}\n".encode())
        yield near


def _ask(address: str, line: str) -> str:
    with _asked(address, line) as near:
        return near.makefile().readline()


def _drain(source: socket.socket, size: int) -> float:
    """Seconds from the first of that many bytes to the last."""
    room = memoryview(bytearray(1 << 20))
    left, begin = size - source.recv_into(room[:1]), time.perf_counter()
    while left:
        if not (got := source.recv_into(room[: min(left, len(room))])):
            raise ConnectionError(f"the other side ended {left} bytes early")
        left -= got
    return time.perf_counter() - begin


# ---------------------------------------------------------------------------------------------- far side


class Heard:
    """Datagrams counted since it was last asked."""

    count, first, last = 0, 0.0, 0.0

    def one(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first if self.count else self.last
        self.count += 1

    def line(self) -> str:
        answer = f"{self.count} {max(self.last - self.first, 1e-9)}\n"
        self.count = 0
        return answer


heard = Heard()


class Control(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        what, _, size = self._line().partition(" ")
        if what == "drain":
            self.request.sendall(f"{_drain(self.request, int(size))}\n".encode())
        elif what == "fill":
            for at in range(0, int(size), len(PIECE)):
                self.request.sendall(PIECE[: int(size) - at])
        else:
            self.request.sendall(heard.line().encode())

    def _line(self) -> str:
        # To its end and no further: what follows is measured.
        line = b""
        while not line.endswith(b"\n"):
            line += self.request.recv(1)
        return line.decode().strip()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


def echo(far: socket.socket) -> None:
    while True:
        message, peer = far.recvfrom(2048)
        far.sendto(message, peer)


def count(far: socket.socket) -> None:
    while True:
        far.recv(2048)
        heard.one()


def main() -> None:
    for port, serve in ((ECHO, echo), (COUNT, count)):
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        far.bind(("", port))
        threading.Thread(target=serve, args=(far,), daemon=True).start()
    with Server(("", CONTROL), Control) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
