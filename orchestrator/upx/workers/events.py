"""What a pool reports while it works: small frozen records for a display, none of them needed for the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upx.specs import Capabilities


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all reports; ``worker`` is its name, as ``upx ps`` shows it."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerStarting(Event):
    """A process was started."""

    pid: int


@dataclass(frozen=True, slots=True)
class WorkerAdopted(Event):
    """A worker that was running already is used."""

    pid: int


@dataclass(frozen=True, slots=True)
class WorkerReady(Event):
    """The model is resident; ``seconds`` since the worker was asked for."""

    capabilities: Capabilities
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadProgress(Event):
    """How far a load is: ``done`` of ``total`` in ``stage``."""

    stage: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class WorkerDied(Event):
    """A worker died, fell silent or missed a deadline."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerEvicted(Event):
    """An idle worker was asked to leave, since memory is short."""

    backend: str


@dataclass(frozen=True, slots=True)
class TileRequeued(Event):
    """So many tiles of a job go to another worker; ``alone`` when each is tried by itself."""

    job: int
    tiles: int
    alone: bool


@dataclass(frozen=True, slots=True)
class LogLine(Event):
    """A log record of a worker."""

    level: str
    message: str
