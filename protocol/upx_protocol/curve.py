"""CURVE for a worker that listens on tcp: its keys, and the list of those who may connect."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple, cast

import zmq
from zmq.utils import z85

log = logging.getLogger("upx.door")

DOMAIN = "upx"
KEY_BYTES = 32
#: Seconds that a peer has for its handshake: half-open connections hold memory and a descriptor.
HANDSHAKE_S = 5
#: More clients than anybody manages by hand; a larger file is a mistake.
MAX_ALLOWED = 10_000
MAX_ALLOWED_BYTES = 4 * 1024 * 1024
# Untyped in pyzmq.
_z85_decode = cast("Callable[[str], bytes]", z85.decode)


def key_text(key: str) -> str:
    """A key as it is shown and written down: 64 hexadecimal digits, of one in ZeroMQ's own text (Z85)."""
    return _z85_decode(key).hex()


@dataclass(frozen=True)
class CurveKeys:
    """z85 text, as in the keys file: the worker's pair, and the public key of its own user's hosts."""

    server_public: str
    server_secret: str
    client_public: str

    @classmethod
    def read(cls, path: str) -> CurveKeys:
        """From the 0600 JSON file that the host wrote; OSError, ValueError or KeyError when it is none."""
        keys = json.loads(Path(path).read_text())
        return cls(keys["server_public"], keys["server_secret"], keys["client_public"])


class Allowlist:
    """Who may connect, by the hexadecimal text of a public key: ``own``, and whoever stands in a file.

    A line of the file is ``NAME KEY``; empty lines and those that begin with "#" say nothing. The file is read again
    when it has changed. One that cannot be read allows nobody but ``own``: a lock that is broken stays shut.
    """

    def __init__(self, own: str, path: str = "") -> None:
        self.own = own
        self._path = path
        self._stamp: Optional[Tuple[int, int, int]] = None
        self._names: Dict[str, str] = {own: "own"}
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def name(self, key: str) -> str:
        """What people call the holder of a key; empty for a stranger."""
        return self._names.get(key, "")

    def refresh(self) -> List[str]:
        """Read the file if it has changed; the keys that were allowed and are no more."""
        stamp = self._look()
        if not self._path or stamp == self._stamp:
            return []
        before, self._stamp = self._names, stamp
        self._names = {**self._read(), self.own: "own"}
        return [key for key in before if key not in self._names]

    def _look(self) -> Optional[Tuple[int, int, int]]:
        try:
            found = os.stat(self._path) if self._path else None  # noqa: PTH116  twice a second, for ever
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size) if found is not None else None

    def _read(self) -> Dict[str, str]:
        try:
            with Path(self._path).open(encoding="utf-8") as file:
                lines = file.read(MAX_ALLOWED_BYTES).splitlines()[:MAX_ALLOWED]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.error("the list of allowed keys cannot be read, nobody else may connect: %s", error)  # noqa: TRY400
            return {}
        return dict(entry for entry in map(parse_allowed, lines) if entry is not None)


def parse_allowed(line: str) -> Optional[Tuple[str, str]]:
    """(key, name) of a line of the list; None for one that names no key."""
    words = line.split()
    if len(words) != 2 or words[0].startswith("#"):  # noqa: PLR2004  a name and a key
        return None
    name, key = words[0], words[1].lower()
    try:
        whole = len(bytes.fromhex(key)) == KEY_BYTES
    except ValueError:
        return None
    return (key, name) if whole else None


def secure(router: zmq.Socket[bytes], keys: CurveKeys) -> None:
    """Make a socket a CURVE server, before it binds."""
    router.curve_server = True
    router.curve_publickey = keys.server_public.encode()
    router.curve_secretkey = keys.server_secret.encode()
    router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
    router.setsockopt(zmq.HANDSHAKE_IVL, 1000 * HANDSHAKE_S)
    # Half-open links are noticed by the transport; whether a worker still thinks is Ping's business.
    router.setsockopt(zmq.HEARTBEAT_IVL, 2_000)
    router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
    router.setsockopt(zmq.HEARTBEAT_TTL, 10_000)
