"""What happens to the lifecycle: requests of callers, answers of workers, deaths, time.

Every one has its time ``now``, in seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Happening:
    """Base of all that happens."""

    now: float


@dataclass(frozen=True, slots=True)
class Submitted(Happening):
    """Tiles of one shape, to be sent as one batch. ``nbytes`` and ``pixels`` of all of them."""

    job: int
    tiles: tuple[int, ...]
    nbytes: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Wanted(Happening):
    """Somebody waits for a worker to be ready."""


@dataclass(frozen=True, slots=True)
class JobCancelled(Happening):
    """A job's tiles are not needed any more."""

    job: int


@dataclass(frozen=True, slots=True)
class Widened(Happening):
    """There is room for so many workers in all: a box has more of them, or is worth another try."""

    limit: int


@dataclass(frozen=True, slots=True)
class Tick(Happening):
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class FromWorker(Happening):
    """Base of what happens to one worker."""

    worker: int


@dataclass(frozen=True, slots=True)
class Serving(FromWorker):
    """The model is resident; so much may be in flight. ``far``: on another machine."""

    tiles: int
    bytes: int
    far: bool = False


@dataclass(frozen=True, slots=True)
class StartFailed(FromWorker):
    """It never served. ``error`` where another try would end the same way."""

    reason: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class SessionLost(FromWorker):
    """It forgot us (we were silent for too long) and will be greeted again."""


@dataclass(frozen=True, slots=True)
class Leaving(FromWorker):
    """It drains."""


@dataclass(frozen=True, slots=True)
class Died(FromWorker):
    """It is gone. ``blame``: not by intent, so a started batch may be the cause.

    ``unclear``: it is far away, and only its link may have ended; ``Explained`` follows, if it is reached again.
    """

    reason: str
    blame: bool
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Explained(FromWorker):
    """Why a worker far away was lost: it ``died``, since another process is in its place, or it never did."""

    died: bool


@dataclass(frozen=True, slots=True)
class BatchStarted(FromWorker):
    """A batch is being computed."""

    batch: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TileDone(FromWorker):
    """One tile's answer; ``payload`` is passed on unseen. ``credit``: bytes for one tile more, where it brings them.

    ``seconds`` of computing; ``nbytes`` of the result, unpacked; ``codec``: how many of them could be packed in a
    second, 0 where they cannot.
    """

    batch: int
    attempt: int
    index: int
    payload: object
    credit: int = 0
    seconds: float = 0.0
    nbytes: int = 0
    codec: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchFailed(FromWorker):
    """One answer for a whole batch. ``cause``: "oom", "input", "fatal" or "transient"."""

    batch: int
    attempt: int
    cause: Literal["oom", "input", "fatal", "transient"]
    message: str


@dataclass(frozen=True, slots=True)
class BatchCancelled(FromWorker):
    """No more answers come for a batch."""

    batch: int
    attempt: int


@dataclass(frozen=True, slots=True)
class BatchRefused(FromWorker):
    """It was dropped for want of credit; the attempt is not told."""

    batch: int


@dataclass(frozen=True, slots=True)
class Credited(FromWorker):
    """So much more may be in flight."""

    tiles: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Ponged(FromWorker):
    """It answers. ``hosts`` with a session; ``tiles_done`` for all of them."""

    hosts: int
    tiles_done: int
