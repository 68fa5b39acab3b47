"""What an attacker is told, and what it says that it has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Going = Callable[[], bool]

LOOPBACK, DEADLINE_S = "127.0.0.1", 10.0


@dataclass(frozen=True)
class Target:
    """Where to attack, with what keys, how much of it, and the bytes of a session that was overheard (hexadecimal).

    Keys are Z85; of a `curve_sink` ``secret`` is the server's own, and ``public`` its one client's, in hexadecimal. For
    an `impostor` ``server`` is in hexadecimal too, and ``home`` that of a client which knows the box.
    """

    port: int = 0
    server: str = ""
    public: str = ""
    secret: str = ""
    seed: int = 0
    connections: int = 0
    nbytes: int = 0
    said: str = ""
    home: str = ""


@dataclass
class Done:
    """What an attack did, and what it met with.

    ``closed``: connections that the other side ended; ``refused``: handshakes and messages that it turned down;
    ``served``: tiles that it got; ``times``: moments, in seconds since the epoch; ``problem``: what should not have
    been possible.
    """

    connections: int = 0
    closed: int = 0
    sent: int = 0
    refused: int = 0
    served: int = 0
    times: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def begin(port: int = 0) -> None:
    """Say that it begins, and where it serves, if it does."""
    print(port, flush=True)
