"""What the tiles of traced pictures go through in a pool, as spans: seen by the I/O thread, decided by nobody here.

    queue      from the job's thread until the batch is sent: it waited for a worker, for credit, for this thread
    wire       from there until the worker computes it; and from its last second of computing to its last answer
    inference  the worker's own seconds, drawn by this host's clock

A worker tells how long it computed and not when, and its clock is never asked. So a batch is taken to have begun when
the worker's report of that came, or its own seconds before the last answer, whichever is earlier: a batch in shared
memory sends no report, and is looked at five times a second. ``wire`` is what that leaves over. Before the computing
it is copying, the way there, and above all the batch in front, which took ``behind_s`` of it; for a batch without a
report the way back is in it too. After the computing (``back``) it is what the answer took. A host that was busy hears
of several batches at once: the earlier ones then move back until each has its seconds. A batch that was lost has no
such seconds: it is drawn from the report until it was missed, or as ``wire`` alone.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from upx.trace import WORKERS, Row, this_thread
from upx.workers.actions import Deliver, FailTile, KillWorker, SendBatch
from upx.workers.happenings import (
    BatchCancelled,
    BatchFailed,
    BatchRefused,
    BatchStarted,
    Died,
    SessionLost,
    StartFailed,
    Submitted,
    TileDone,
)
from upx.workers.tiles import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upx.trace import Span, TileTrace, Tracer
    from upx.workers.actions import Action
    from upx.workers.happenings import FromWorker, Happening
    from upx.workers.state import Batch
    from upx.workers.tiles import Tiles

# What is shorter is the rounding of seconds.
LEAST_S = 1e-6
# Batches of a worker whose bars may still move: ten times what one far away has at a time.
MOVABLE = 256


@dataclass(slots=True)
class Open:
    """A tile without its answer. ``since``: it waits on the host from then on; None while a worker has it."""

    trace: TileTrace
    since: float | None


@dataclass(slots=True)
class Flight:
    """A batch that a worker has. ``left``: its tiles without an answer, by index and number.

    ``began``: when it was first known to be computed; ``seconds``: of computing, so far as they were told. Once all are
    answered: ``start`` and ``end`` of its bar, ``behind`` others for so long, ``heard`` of at that time.
    """

    worker: int
    row: Row
    tracer: Tracer
    args: dict[str, Any]
    left: dict[int, int]
    sent: float
    wire: Span
    inference: Span | None = None
    began: float | None = None
    seconds: float = 0.0
    start: float = 0.0
    end: float = 0.0
    behind: float = 0.0
    heard: float = 0.0
    back: Span | None = None


@dataclass(slots=True)
class Bars:
    """The last batches that one worker has answered, in order; what it did ``until`` then stays as it is drawn."""

    until: float = 0.0
    _last: deque[Flight] = field(default_factory=deque["Flight"])

    def place(self, flight: Flight, start: float, ended: float) -> list[Flight]:
        """Give a batch its bar, from ``start`` for its seconds and not beyond ``ended``; all whose bars are changed.

        Those before it go back as far as that needs, none to before it was sent or into the one before it. What the
        worker really did fits so, whenever it was heard of.
        """
        free = self.until
        for bar in self._last:
            free = max(free, bar.sent) + bar.end - bar.start
        flight.start = max(start, flight.sent, free)
        flight.end = max(flight.start, min(flight.start + flight.seconds, ended))
        changed = self._push(flight)
        self._last.append(flight)
        if len(self._last) > MOVABLE:
            self.until = self._last.popleft().end
        return changed

    def _push(self, flight: Flight) -> list[Flight]:
        changed = [flight]
        for bar in reversed(self._last):
            after = changed[-1]
            moves = bar.end > after.start
            if moves:
                bar.start, bar.end = after.start - (bar.end - bar.start), after.start
            after.behind = max(0.0, bar.end - after.sent)
            if not moves:
                return changed
            changed.append(bar)
        changed[-1].behind = max(0.0, self.until - changed[-1].sent)
        return changed


class Tracing:
    """One pool's view for the tracers of its tiles; ``name`` is what a worker is called. For the I/O thread alone."""

    def __init__(self, tiles: Tiles, name: Callable[[int], str]) -> None:
        self._tiles, self._name = tiles, name
        self._open: dict[int, Open] = {}
        self._flights: dict[tuple[int, int, int], Flight] = {}
        self._lost: list[Flight] = []
        self._bars: dict[int, Bars] = {}
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            Submitted: self._submitted, BatchStarted: self._started, TileDone: self._done,
            BatchFailed: self._failed, BatchCancelled: partial(self._ended, "cancelled"),
            BatchRefused: self._refused, Died: partial(self._gone, "died"),
            StartFailed: partial(self._gone, "start failed"), SessionLost: partial(self._gone, "session lost"),
            SendBatch: self._sent, KillWorker: partial(self._gone, "killed"), Deliver: self._delivered,
            FailTile: self._tile_failed,
        }  # fmt: skip

    def see(self, happening: Happening, actions: Sequence[Action]) -> None:
        """A happening, and what the lifecycle made of it; before that is carried out."""
        now = time.perf_counter()
        for it in (happening, *actions):
            handler = self._handlers.get(type(it))
            if handler is not None:
                handler(it, now)
        for flight in self._lost:
            self._tell_requeued(flight)
        self._lost.clear()

    # On the host

    def _submitted(self, it: Submitted, _now: float) -> None:
        for number, tile in zip(it.tiles, self._tiles.of(it.tiles), strict=True):
            if tile.trace is not None:
                self._open[number] = Open(tile.trace, tile.trace.at)

    def _sent(self, it: SendBatch, now: float) -> None:
        batch = it.batch
        waiting = [self._open[number] for number in batch.open if number in self._open]
        if not waiting:
            return
        args = _args(batch, waiting, self._name(it.worker))
        tracer = waiting[0].trace.picture.tracer
        since = min((each.since for each in waiting if each.since is not None), default=now)
        tracer.end(tracer.begin("queue", this_thread(), args, start=since, apart=True), end=now)
        for each in waiting:
            each.since = None
        left = {index: number for index, number in enumerate(batch.tiles) if index not in batch.done}
        wire = tracer.begin("wire", this_thread(), args, start=now, apart=True)
        self._flights[it.worker, batch.id, batch.attempt] = Flight(
            it.worker, Row(WORKERS, args["worker"]), tracer, args, left, now, wire
        )

    def _delivered(self, it: Deliver, _now: float) -> None:
        self._open.pop(it.tile, None)

    def _tile_failed(self, it: FailTile, now: float) -> None:
        tile = self._open.pop(it.tile, None)
        if tile is None or tile.since is None or tile.since == now:
            return
        args = {"picture": tile.trace.picture.number, "tiles": [tile.trace.index], "outcome": it.cause}
        tracer = tile.trace.picture.tracer
        tracer.end(tracer.begin("queue", this_thread(), args, start=tile.since, apart=True), end=now)

    # At a worker

    def _started(self, it: BatchStarted, now: float) -> None:
        flight = self._flights.get((it.worker, it.batch, it.attempt))
        if flight is None or flight.began is not None:
            return
        flight.began = now
        flight.tracer.end(flight.wire, end=now)
        flight.inference = flight.tracer.begin("inference", flight.row, flight.args, start=now)

    def _done(self, it: TileDone, now: float) -> None:
        key = (it.worker, it.batch, it.attempt)
        flight = self._flights.get(key)
        if flight is None or flight.left.pop(it.index, None) is None:
            return
        if isinstance(it.payload, Answer):
            flight.seconds += it.payload.seconds
        if not flight.left:
            del self._flights[key]
            self._draw(flight, now)

    def _draw(self, flight: Flight, now: float) -> None:
        """A batch has its last answer: only now is it known when it was computed."""
        flight.heard = now
        began = now if flight.began is None else flight.began
        # Its answer may come after the worker was seen at the next one.
        ended = min(now, self._next_began(flight, now))
        bars = self._bars.setdefault(flight.worker, Bars())
        for each in bars.place(flight, min(began, ended - flight.seconds), ended):
            self._show(each)

    def _show(self, flight: Flight) -> None:
        tracer, start, end = flight.tracer, flight.start, flight.end
        tracer.end(flight.wire, end=start, behind_s=round(flight.behind, 6))
        if flight.inference is None:
            flight.inference = tracer.begin("inference", flight.row, flight.args, start=start)
        tracer.end(flight.inference, start=start, end=end, seconds=round(flight.seconds, 6))
        if flight.back is None and flight.heard - end > LEAST_S:
            args = {**flight.args, "back": True}
            flight.back = tracer.begin("wire", this_thread(), args, start=end, apart=True)
        if flight.back is not None:
            tracer.end(flight.back, start=end, end=flight.heard)

    def _next_began(self, flight: Flight, now: float) -> float:
        """When the worker turned to the next batch, which may be reported before this one's answers come."""
        others = [each.began for each in self._flights.values() if each.worker == flight.worker]
        after = [began for began in others if began is not None and began >= (flight.began or now)]
        return min(after, default=now)

    # Without an answer

    def _failed(self, it: BatchFailed, now: float) -> None:
        self._ended(it.cause, it, now)

    def _ended(self, outcome: str, it: BatchFailed | BatchCancelled, now: float) -> None:
        self._lose([(it.worker, it.batch, it.attempt)], outcome, now)

    def _refused(self, it: BatchRefused, now: float) -> None:
        self._lose([key for key in self._flights if key[:2] == (it.worker, it.batch)], "refused", now)

    def _gone(self, what: str, it: FromWorker | KillWorker, now: float) -> None:
        """A worker, or our session with it: told to every picture that has tiles under way."""
        row, reason = Row(WORKERS, self._name(it.worker)), getattr(it, "reason", "")
        for tracer in {each.trace.picture.tracer for each in self._open.values()}:
            tracer.instant(what, row, worker=row.name, reason=reason)
        self._lose([key for key in self._flights if key[0] == it.worker], what, now)
        # What it may still be given is sent later than all that is drawn.
        self._bars.pop(it.worker, None)

    def _lose(self, keys: Sequence[tuple[int, int, int]], outcome: str, now: float) -> None:
        for key in keys:
            flight = self._flights.pop(key, None)
            if flight is None:
                continue
            flight.tracer.end(flight.inference or flight.wire, end=now, outcome=outcome)
            if flight.inference is not None:
                self._bars[flight.worker] = Bars(until=now)
            for number in flight.left.values():
                if number in self._open:
                    self._open[number].since = now
            self._lost.append(flight)

    def _tell_requeued(self, flight: Flight) -> None:
        """Tiles that were neither answered nor failed when their batch was lost: they wait once more."""
        again = [self._open[number].trace.index for number in flight.left.values() if number in self._open]
        if again:
            flight.tracer.instant("requeued", flight.row, **{**flight.args, "tiles": again})


def _args(batch: Batch, waiting: Sequence[Open], worker: str) -> dict[str, Any]:
    return {
        "picture": waiting[0].trace.picture.number,
        "tiles": [each.trace.index for each in waiting],
        "batch": batch.id,
        "attempt": batch.attempt,
        "worker": worker,
    }
