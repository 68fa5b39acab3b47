"""CURVE for a worker that listens on tcp: its keys, and the handler that lets in nobody but its hosts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, cast

import zmq
from zmq.utils import z85

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
DOMAIN = "upx"
# Untyped in pyzmq.
_z85_decode = cast("Callable[[str], bytes]", z85.decode)


@dataclass(frozen=True)
class CurveKeys:
    """z85 text, as in the keys file: the worker's pair, and the one public key whose holders may connect."""

    server_public: str
    server_secret: str
    client_public: str

    @classmethod
    def read(cls, path: str) -> CurveKeys:
        """From the 0600 JSON file that the host wrote; OSError, ValueError or KeyError when it is none."""
        keys = json.loads(Path(path).read_text())
        return cls(keys["server_public"], keys["server_secret"], keys["client_public"])


class Gate:
    """Answers ZeroMQ's question, for each connection, whether its key may enter (RFC 27)."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys) -> None:
        self._allowed = _z85_decode(keys.client_public)
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ENDPOINT)

    def answer(self) -> None:
        """Answer one question, if there is one."""
        try:
            parts = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        self.socket.send_multipart(self._verdict(parts))

    def _verdict(self, parts: List[bytes]) -> List[bytes]:
        # version, request id, domain, address, identity, mechanism, credentials
        version, request = (*parts, b"", b"")[:2]
        known = len(parts) == 7 and parts[5] == b"CURVE" and parts[6] == self._allowed  # noqa: PLR2004
        status, text = (b"200", b"OK") if known and version == ZAP_VERSION else (b"400", b"not this key")
        return [ZAP_VERSION, request, status, text, b"", b""]

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def secure(router: zmq.Socket[bytes], keys: CurveKeys) -> None:
    """Make a socket a CURVE server, before it binds."""
    router.curve_server = True
    router.curve_publickey = keys.server_public.encode()
    router.curve_secretkey = keys.server_secret.encode()
    router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
    # Half-open links are noticed by the transport; whether a worker still thinks is Ping's business.
    router.setsockopt(zmq.HEARTBEAT_IVL, 2_000)
    router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
    router.setsockopt(zmq.HEARTBEAT_TTL, 10_000)
