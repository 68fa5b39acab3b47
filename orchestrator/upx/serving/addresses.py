"""Where a box listens: the address that was asked for, and a socket for each of its workers.

The sockets belong to the supervising process and outlive its workers: who connects while one is being restarted waits
in the socket's queue instead of being turned away.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.errors import UsageError, WorkerStartError
from upx.remote.boxes import MOST_PORT, is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTEN = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+|\*):(?P<port>[0-9]{1,5}|\*)")
QUEUE = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` as a socket takes it; ``port`` of the first worker, 0 for any that is free."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can connect."""
        return is_loopback(self.host)

    def endpoint(self, port: int) -> str:
        """What a worker binds."""
        return f"tcp://[{self.host}]:{port}" if ":" in self.host else f"tcp://{self.host}:{port}"


def parse_listen(text: str) -> Address:
    """``tcp://ADDRESS:PORT``; ``*`` stands for every address, or for any free port. UsageError for anything else."""
    match = _LISTEN.fullmatch(text)
    port = 0 if match is None or match["port"] == "*" else int(match["port"])
    if match is None or port > MOST_PORT:
        raise UsageError(f"{text!r} is no address to listen at", hint="tcp://0.0.0.0:7600, or tcp://127.0.0.1:7600")
    host = match["host"].strip("[]")
    return Address("0.0.0.0" if host == "*" else host, port)  # noqa: S104  asked for, and only with keys


def listen(address: Address, count: int) -> Sequence[socket.socket]:
    """Sockets for so many workers, at consecutive ports where one was named; WorkerStartError where one is taken."""
    made: list[socket.socket] = []
    try:
        for number in range(count):
            # One by one: those before a port that is taken are closed again.
            made.append(_listen(address.host, address.port + number if address.port else 0))  # noqa: PERF401
    except (OSError, OverflowError) as error:
        for each in made:
            each.close()
        where = address.endpoint(address.port + len(made))
        why = getattr(error, "strerror", None) or error
        raise WorkerStartError(f"{where} cannot be listened at: {why}", hint="take another --listen") from error
    return made


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(QUEUE)
    except BaseException:
        made.close()
        raise
    # ZeroMQ accepts without waiting, and expects the same of the socket.
    made.setblocking(False)
    return made
