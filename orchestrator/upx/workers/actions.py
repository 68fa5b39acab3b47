"""What the lifecycle decides, for the supervisor to carry out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upx.workers.state import Batch, Cause


@dataclass(frozen=True, slots=True)
class Action:
    """Base of all decisions."""


@dataclass(frozen=True, slots=True)
class StartWorker(Action):
    """Find or start a process for this worker."""

    worker: int


@dataclass(frozen=True, slots=True)
class SendBatch(Action):
    """Send a batch; ``packed``: made smaller for the wire, there and back."""

    worker: int
    batch: Batch
    packed: bool = False


@dataclass(frozen=True, slots=True)
class SendCancel(Action):
    """Tell that a batch is not needed."""

    worker: int
    batch: int
    attempt: int


@dataclass(frozen=True, slots=True)
class SendPing(Action):
    """Ask whether it is there."""

    worker: int


@dataclass(frozen=True, slots=True)
class KillWorker(Action):
    """End it at once, or only our session where other hosts are served (``abandon``); ``Died`` follows."""

    worker: int
    reason: str
    abandon: bool = False


@dataclass(frozen=True, slots=True)
class Deliver(Action):
    """Complete a tile."""

    tile: int
    payload: object


@dataclass(frozen=True, slots=True)
class FailTile(Action):
    """Fail a tile for good. ``error`` is passed on where there is one already."""

    tile: int
    cause: Cause
    message: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Requeued(Action):
    """A report: so many tiles of a job are tried again."""

    worker: int
    job: int
    tiles: int
    alone: bool


@dataclass(frozen=True, slots=True)
class GaveUp(Action):
    """No worker can be had: whoever waits for one is told."""

    reason: str
    error: Exception | None = None
