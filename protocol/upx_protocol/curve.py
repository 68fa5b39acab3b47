"""CURVE for a worker that listens on tcp: its keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, cast

import zmq
from zmq.utils import z85

DOMAIN = "upx"
#: Seconds that a peer has for its handshake: half-open connections hold memory and a descriptor.
HANDSHAKE_S = 5
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
