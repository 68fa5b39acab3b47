"""The messages that measure a link: bytes there and back, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from upx_protocol.fields import Buffer, Message, buffers, integer, wire


@dataclass(frozen=True)
class Echo(Message):
    """A host measures the way: one buffer, which comes back as it is. It costs the credit of a tile."""

    id: int = wire(integer)
    bufs: Tuple[Buffer, ...] = wire(buffers)


@dataclass(frozen=True)
class Echoed(Message):
    """The answer to ``Echo``; its credit comes back with it."""

    id: int = wire(integer)
    bufs: Tuple[Buffer, ...] = wire(buffers)
