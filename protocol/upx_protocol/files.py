"""The messages about files that a host sends to a worker whose machine lacks them.

A name says what a person calls a file; what decides is its digest alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Tuple

from upx_protocol.arrays import check_buffer
from upx_protocol.errors import MalformedError
from upx_protocol.fields import Buffer, Message, Wired, buffers, integer, many, text, wire

#: The feature's name in ``Hello`` and ``Welcome``.
FILES = "files"
#: Bytes of a chunk, all but a file's last one, and how many may be on their way: 100 MB/s at 80 ms.
CHUNK, WINDOW = 256 * 1024, 8 * 1024 * 1024
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wanted(Wired):
    """A file that a machine lacks; ``size`` in bytes, 0 where it does not know it."""

    role: str = wire(text)
    name: str = wire(text)
    sha256: str = wire(text)
    size: int = wire(integer, 0)


def _wanted(_name: str, value: Any) -> Wanted:
    return Wanted.from_wire(value)


wanted = many(_wanted)


@dataclass(frozen=True)
class Want(Message):
    """The answer to ``Load`` where files are missing that the host may send; ``message``: why, for people."""

    id: int = wire(integer)
    files: Tuple[Wanted, ...] = wire(wanted)
    message: str = wire(text, "")


@dataclass(frozen=True)
class Offer(Message):
    """A host begins, or goes on, to send a file that is wanted."""

    id: int = wire(integer)
    sha256: str = wire(text)
    size: int = wire(integer)


@dataclass(frozen=True)
class Chunk(Message):
    """The next bytes of the file that was offered under ``id``, from ``offset`` on."""

    id: int = wire(integer)
    offset: int = wire(integer)
    bufs: Tuple[Buffer, ...] = wire(buffers)


@dataclass(frozen=True)
class Taken(Message):
    """The first ``offset`` bytes are kept; ``window`` more may be on their way. 0: not now, offer it again later."""

    id: int = wire(integer)
    offset: int = wire(integer)
    window: int = wire(integer, 0)


def check_chunk(described: Tuple[Buffer, ...]) -> None:
    """MalformedError unless this describes plain bytes, no more than a chunk has."""
    if len(described) != 1:
        raise MalformedError("a chunk is one buffer")
    check_buffer(described[0])
    if described[0].dtype != "uint8" or len(described[0].shape) != 1 or described[0].loc != "inline":
        raise MalformedError("a chunk is plain bytes, inline")
    if described[0].nbytes > CHUNK:
        raise MalformedError(f"a chunk of more than {CHUNK} bytes")
