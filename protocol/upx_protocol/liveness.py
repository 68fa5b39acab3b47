"""The messages about a worker's life: whether it answers, how far it is, what it logs, that it leaves."""

from __future__ import annotations

from dataclasses import dataclass

from upx_protocol.fields import Message, integer, number, text, wire


@dataclass(frozen=True)
class Ping(Message):
    """The sender asks whether the receiver still answers."""

    nonce: int = wire(integer)


@dataclass(frozen=True)
class Pong(Message):
    """The answer to ``Ping``.

    ``queued``: tiles waiting or being computed for all hosts; ``hosts``: sessions; ``memory``: the worker's
    resident set in bytes, 0 where unknown. Since its birth, ``age_s`` seconds ago: it has done ``tiles_done`` tiles,
    which had ``pixels_done`` input pixels together, and had a batch in work for ``busy_s`` seconds. ``model``: the one
    that is resident; ``device`` and ``device_name``: where it computes. Zeros and no names: an older worker.
    """

    nonce: int = wire(integer)
    queued: int = wire(integer, 0)
    hosts: int = wire(integer, 0)
    memory: int = wire(integer, 0)
    tiles_done: int = wire(integer, 0)
    pixels_done: int = wire(integer, 0)
    busy_s: float = wire(number, 0.0)
    age_s: float = wire(number, 0.0)
    model: str = wire(text, "")
    device: str = wire(text, "")
    device_name: str = wire(text, "")


@dataclass(frozen=True)
class Progress(Message):
    """How far a ``Load`` is: ``done`` of ``total`` in ``stage``."""

    id: int = wire(integer)
    stage: str = wire(text)
    done: float = wire(number, 0.0)
    total: float = wire(number, 0.0)


@dataclass(frozen=True)
class Log(Message):
    """A log record of the worker; ``time`` in seconds since the epoch."""

    level: str = wire(text)
    logger: str = wire(text)
    message: str = wire(text)
    time: float = wire(number, 0.0)


@dataclass(frozen=True)
class Drain(Message):
    """Finish what is queued, take nothing new, then leave."""

    id: int = wire(integer)


@dataclass(frozen=True)
class Drained(Message):
    """All is done; the worker leaves."""

    id: int = wire(integer)


@dataclass(frozen=True)
class Bye(Message):
    """The sender ends the session (a host) or is leaving (a worker)."""

    reason: str = wire(text, "")
