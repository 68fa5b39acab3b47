"""The lifecycle's state: what it knows of workers, of the batches that they have, and of those that wait.

Tiles, batches and workers are numbers here; arrays, futures, sockets and processes belong to the supervisor. Named
tuples, since a changed copy of one takes a fifth of the time that ``dataclasses.replace`` needs, and every message
makes several.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from upx.workers.packing import Trial
from upx.workers.plan import Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

# leaving: it finishes what it has and takes nothing new. ending: it was killed and is not reaped yet.
Phase: TypeAlias = Literal["starting", "serving", "leaving", "ending"]
Cause: TypeAlias = Literal["cancelled", "oom", "input", "fatal", "poison", "lost"]


# Batches that a worker has at a time: one that it computes, one that is there when it ends.
DEPTH = 2


class Batch(NamedTuple):
    """Tiles of one shape that travel together. ``id`` and ``attempt`` name it on the wire.

    ``kills``: workers that died of it; ``alone``: under suspicion, nothing else may run beside it; ``done``:
    indices of the tiles that were answered; ``refusals``: transient failures so far.
    """

    id: int
    job: int
    tiles: tuple[int, ...]
    nbytes: int
    pixels: int
    attempt: int = 0
    kills: int = 0
    alone: bool = False
    done: frozenset[int] = frozenset()
    refusals: int = 0

    @property
    def open(self) -> tuple[int, ...]:
        """The tiles without an answer."""
        return tuple(tile for index, tile in enumerate(self.tiles) if index not in self.done)


class Sent(NamedTuple):
    """A batch that a worker has. ``started``: when its computation began, None while it waits there.

    ``dropped``: it was cancelled, or another was faster, and only its end is still to come. ``ahead``: pixels that the
    worker had to do when it was sent; ``packed``: how it travels.
    """

    batch: Batch
    at: float
    started: float | None = None
    dropped: bool = False
    ahead: int = 0
    packed: bool = False


class Worker(NamedTuple):
    """One worker as the lifecycle sees it. ``tiles`` and ``bytes`` are the credit left, ``most_*`` all of it.

    ``unanswered``: pings since the last answer; ``progress``: when work was last seen to advance; ``hosts``: how
    many have a session; ``rests``: no batch is given before that time. ``far``: on another machine; ``depth``: batches
    that it is given at a time; ``finished``: when one last ended; ``paces``, their mean ``pace``, and ``trip``, of a
    batch of so many ``trip_pixels``: as ``pacing`` measures them; ``packed`` and ``trial``: as ``packing`` decides.
    """

    id: int
    phase: Phase = "starting"
    tiles: int = 0
    bytes: int = 0
    most_tiles: int = 0
    most_bytes: int = 0
    sent: tuple[Sent, ...] = ()
    pinged: float = 0.0
    unanswered: int = 0
    progress: float = 0.0
    tiles_done: int = 0
    hosts: int = 1
    rests: float = 0.0
    far: bool = False
    depth: int = DEPTH
    finished: float = 0.0
    paces: tuple[float, ...] = ()
    pace: float = 0.0
    trip: float = 0.0
    trip_pixels: int = 0
    packed: bool = False
    trial: Trial = Trial()

    @property
    def started(self) -> bool:
        """Whether it computes a batch of ours."""
        return any(sent.started is not None for sent in self.sent)


class State(NamedTuple):
    """Everything that the lifecycle knows. ``limit``: at most so many workers; ``wanted``: one, even without work.

    ``failures``: starts or deaths in a row without one tile done; ``seen``: pixels of a batch to the latest
    seconds that such a one took. ``varied``: workers are of several machines, and where one cannot be had another may.
    ``accused``: what a worker far away computed, or had first, when its link ended, while nobody knows whether it died
    of that.
    """

    limit: int = 1
    timeouts: Timeouts = Timeouts()
    queue: tuple[Batch, ...] = ()
    workers: Mapping[int, Worker] = MappingProxyType({})
    next_worker: int = 0
    next_batch: int = 1
    failures: int = 0
    not_before: float = 0.0
    wanted: bool = False
    ticked: float = 0.0
    seen: Mapping[int, tuple[float, ...]] = MappingProxyType({})
    varied: bool = False
    accused: Mapping[int, tuple[Sent, ...]] = MappingProxyType({})
