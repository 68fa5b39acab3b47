"""What ``upx ps`` and ``upx top`` return, and how it is made of what was seen; records as in ``upx.cli._results``."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from upx.cli._pace import LEAST_S, MEGA, Pace, counted, total
from upx.errors import WorkerStartError
from upx.workers.words import tame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.remote.sights import Sight

LOCAL = "local"
# What the state of a worker may be.
STARTING, CONNECTING, IDLE, IN_USE = "starting", "connecting", "idle", "in use"
NO_ANSWER, UNREACHABLE = "no answer", "unreachable"
AWAY = frozenset({NO_ANSWER, UNREACHABLE})
# Nothing is known of what these do.
UNHEARD = AWAY | {CONNECTING}


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One line of ``upx ps``. Seconds: ``keep_alive`` (None: for ever), ``idle`` and ``age``; ``memory`` in bytes.

    ``place``: "local", or the name of a box, of which ``idle``, ``keep_alive`` and ``pid`` are not known. ``state``:
    "starting", "connecting", "idle", "in use", "no answer" or "unreachable"; ``message`` says why of the last two.
    ``queue``: tiles that wait or are computed; None, as what follows, where the worker did not say.
    Since its birth: ``tiles``, ``megapixels`` of input, ``busy_seconds`` of computing; ``rate``: megapixels for each of
    these seconds, None before the first tile.
    """

    KIND: ClassVar[str] = "worker"
    id: str
    backend: str
    model: str
    device: str
    state: str
    hosts: int
    tied: bool
    keep_alive: float | None
    idle: float
    age: float
    memory: int
    pid: int
    place: str
    device_name: str
    queue: int | None
    tiles: int | None
    megapixels: float | None
    busy_seconds: float | None
    rate: float | None
    message: str


@dataclass(frozen=True, slots=True)
class TopRow(WorkerRow):
    """One line of ``upx top``: a worker and its pace over the last seconds, None before that is known.

    Megapixels of input and tiles a second; ``busy``: the share of the time with a batch in work, of 1.
    """

    KIND: ClassVar[str] = "top_worker"
    megapixels_per_second: float | None
    tiles_per_second: float | None
    busy: float | None


@dataclass(frozen=True, slots=True)
class TopSample:
    """One look of ``upx top``: ``time`` in seconds since the epoch, sums over all workers, the workers.

    ``busy``: the mean over the workers whose pace is known.
    """

    KIND: ClassVar[str] = "top"
    time: float
    queue: int
    megapixels_per_second: float
    tiles_per_second: float
    busy: float
    workers: tuple[TopRow, ...]


def worker_row(sight: Sight) -> WorkerRow:
    """A line of what was seen, as far as it was."""
    info, pong = sight.info, sight.pong
    hosts = pong.hosts if pong is not None else info.hosts if info is not None else 0
    if info is not None:
        age = max(0.0, time.time() - info.started) if info.started else 0.0
    else:
        age = pong.age_s if pong is not None else 0.0
    tiles, pixels, busy = (0, 0, 0.0) if pong is None else (pong.tiles_done, pong.pixels_done, pong.busy_s)
    # A worker of an older release does not tell its age, and none of what came with it.
    told = pong is not None and pong.age_s > 0
    return WorkerRow(
        id=sight.name,
        backend=sight.backend,
        model=_words(pong.model if pong is not None else "", info.model if info is not None else ""),
        device=_words(info.device if info is not None else "", pong.device if pong is not None else ""),
        state=_state(sight, hosts),
        hosts=int(counted(hosts)),
        tied=info is not None and info.tied,
        keep_alive=info.idle_s if info is not None else None,
        idle=round(info.idle, 1) if info is not None else 0.0,
        age=round(counted(age), 1),
        memory=_memory(sight),
        pid=info.pid if info is not None else 0,
        place=sight.box or LOCAL,
        device_name=tame(pong.device_name) if pong is not None else "",
        queue=int(counted(pong.queued)) if pong is not None else None,
        tiles=int(counted(tiles)) if told else None,
        megapixels=round(counted(pixels) / MEGA, 3) if told else None,
        busy_seconds=round(counted(busy), 1) if told else None,
        rate=round(counted(pixels) / MEGA / busy, 6) if told and tiles > 0 and busy >= LEAST_S else None,
        message=" ".join(str(sight.error).split()) if sight.error is not None else "",
    )


def _words(first: str, second: str) -> str:
    return tame(first or second)


def _memory(sight: Sight) -> int:
    if sight.pong is not None and sight.pong.memory > 0:
        return int(counted(sight.pong.memory))
    return sight.info.memory if sight.info is not None else 0


def _state(sight: Sight, hosts: int) -> str:
    info = sight.info
    if info is not None and info.starting:
        return STARTING
    if sight.pong is None and info is None:
        return CONNECTING if sight.error is None else UNREACHABLE
    # One of another release cannot be looked at, and may be as well as any.
    if sight.pong is None and isinstance(sight.error, WorkerStartError):
        return NO_ANSWER
    return IN_USE if hosts > 0 else IDLE


def top_sample(rows: Sequence[WorkerRow], paces: Sequence[Pace | None], now: float) -> TopSample:
    """One look at all workers; ``paces`` in the order of the rows."""
    whole = total([pace for pace in paces if pace is not None]).rounded()
    return TopSample(
        time=round(now, 3),
        queue=sum(row.queue or 0 for row in rows),
        megapixels_per_second=whole.megapixels,
        tiles_per_second=whole.tiles,
        busy=whole.busy,
        workers=tuple(_top_row(row, pace) for row, pace in zip(rows, paces, strict=True)),
    )


def _top_row(row: WorkerRow, pace: Pace | None) -> TopRow:
    facts = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    told = None if pace is None else pace.rounded()
    return TopRow(
        **facts,
        megapixels_per_second=None if told is None else told.megapixels,
        tiles_per_second=None if told is None else told.tiles,
        busy=None if told is None else told.busy,
    )
