"""The messages about memory that host and worker share; ``ring`` is the memory itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from upx_protocol.fields import Message, flag, integer, many, text, wire


@dataclass(frozen=True)
class Ring(Message):
    """Memory to be shared: descriptor ``fd`` of process ``pid``, ``size`` bytes; its identity on this machine.

    ``reader`` and ``writer``: descriptors of the worker's ends of two pipes there, -1 where there are none.
    """

    id: int = wire(integer)
    pid: int = wire(integer)
    fd: int = wire(integer)
    device: int = wire(integer)
    inode: int = wire(integer)
    size: int = wire(integer)
    reader: int = wire(integer, -1)
    reader_inode: int = wire(integer, 0)
    writer: int = wire(integer, -1)
    writer_inode: int = wire(integer, 0)


@dataclass(frozen=True)
class Mapped(Message):
    """The answer to ``Ring``: whether its memory is shared from here on, and its pipes are open."""

    id: int = wire(integer)
    ok: bool = wire(flag, default=True)
    message: str = wire(text, "")
    pipes: bool = wire(flag, default=False)


@dataclass(frozen=True)
class Release(Message):
    """Reserved: slots of a ring are given back by the answers themselves."""

    slots: Tuple[int, ...] = wire(many(integer))
    gens: Tuple[int, ...] = wire(many(integer))
