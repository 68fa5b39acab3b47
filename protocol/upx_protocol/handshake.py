"""The three messages of the handshake, whose layout is frozen for ever.

Two sides of any versions must be able to read them, or they cannot even say that they do not match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple, Type

from upx_protocol.fields import Message, integer, many, text, version, wire
from upx_protocol.version import Version


@dataclass(frozen=True)
class Hello(Message):
    """A host asks for a session. ``env`` and ``build``: the fingerprints it expects, empty for any."""

    id: int = wire(integer)
    protocol_min: Version = wire(version)  # noqa: RUF009  wire() makes a field
    protocol_max: Version = wire(version)  # noqa: RUF009  wire() makes a field
    features: Tuple[str, ...] = wire(many(text), ())
    host: str = wire(text, "")
    env: str = wire(text, "")
    build: str = wire(text, "")


@dataclass(frozen=True)
class Welcome(Message):
    """A session is open. ``load_key``: the key of the ``Load`` that is resident, empty where none is.

    ``credit_tiles`` and ``credit_bytes``: what the host may have in flight; ``max_bytes``: the largest part.
    ``box``: the name of a machine that serves a network, ``ports`` those of all its workers, this one's first.
    """

    id: int = wire(integer)
    session: str = wire(text)
    protocol: Version = wire(version)  # noqa: RUF009  wire() makes a field
    backend: str = wire(text)
    features: Tuple[str, ...] = wire(many(text), ())
    env: str = wire(text, "")
    build: str = wire(text, "")
    pid: int = wire(integer, 0)
    credit_tiles: int = wire(integer, 1)
    credit_bytes: int = wire(integer, 0)
    max_bytes: int = wire(integer, 0)
    load_key: str = wire(text, "")
    box: str = wire(text, "")
    ports: Tuple[int, ...] = wire(many(integer), ())


_NO_VERSION = Version(0, 0)


@dataclass(frozen=True)
class Reject(Message):
    """A message is refused.

    ``reason``: "version", "leaving", "session", "busy", "identity", "credit", "revoked", "forbidden" or
    "malformed". ``protocol_min`` and ``protocol_max``: what the worker speaks.
    """

    id: int = wire(integer, 0)
    reason: str = wire(text, "malformed")
    message: str = wire(text, "")
    protocol_min: Version = wire(version, _NO_VERSION)  # noqa: RUF009  wire() makes a field
    protocol_max: Version = wire(version, _NO_VERSION)  # noqa: RUF009  wire() makes a field


HANDSHAKES: Tuple[Type[Message], ...] = (Hello, Welcome, Reject)
