"""The trace of a command: what was done when and by whom, in Chrome's Trace Event Format.

    upx       upx-picture_0    picture: decode, start, tile, wait, stitch, encode      one row a job's thread
              queue, wire      a batch of tiles on its way, beside the rows            they may overlap
    workers   nearest-1a2b3c   inference                                               one row a worker

Only a recorder: it decides nothing and writes no file. Threads may share it, and it keeps a limited number of spans.
Every time is ``time.perf_counter`` of this process, so the clocks of host and worker are never compared.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

# Spans and instants kept, some 500 bytes each. A tile has about eight: enough for pictures of 800 megapixels.
MOST = 100_000
HOST, WORKERS = "upx", "workers"
# A file that begins otherwise is no trace of ours.
HEAD = '{"displayTimeUnit": "ms",'
_PROCESSES = {HOST: 1, WORKERS: 2}
# Viewers take thread 0 for the idle one, and thread N of process N for its main thread.
_FIRST_THREAD = 11


class Row(NamedTuple):
    """Where spans are drawn: ``HOST`` or ``WORKERS``, and the name of a thread or a worker."""

    process: str
    name: str


@dataclass(slots=True)
class Span:
    """Something that took time. ``end`` is None while it lasts; ``apart``: it may overlap others of its row."""

    name: str
    row: Row
    start: float
    end: float | None
    args: Mapping[str, Any]
    apart: bool = False


class Tracer:
    """Takes spans and instants from any thread; ``lines`` is the file that they make."""

    def __init__(self, *, most: int = MOST) -> None:
        self.dropped = 0
        self._most = most
        self._began = time.perf_counter()
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._instants: list[Span] = []
        self._closed = False

    @property
    def empty(self) -> bool:
        """Whether nothing happened."""
        return not (self._spans or self._instants or self.dropped)

    def begin(
        self, name: str, row: Row, args: Mapping[str, Any], *, start: float | None = None, apart: bool = False
    ) -> Span:
        """A span that lasts until ``end``; without it, until the trace is written."""
        return self._keep(
            Span(name, row, time.perf_counter() if start is None else start, None, args, apart), self._spans
        )

    def end(self, span: Span, *, start: float | None = None, end: float | None = None, **args: object) -> None:
        """End it, now or at ``end``; ``start`` where only its end told when it had begun; with more ``args``."""
        with self._lock:
            span.start = span.start if start is None else start
            span.end = max(span.start, time.perf_counter() if end is None else end)
            span.args = {**span.args, **args} if args else span.args

    def add(self, name: str, row: Row, start: float, end: float, args: Mapping[str, Any]) -> None:
        """A span that is over."""
        self._keep(Span(name, row, start, end, args), self._spans)

    def instant(self, name: str, row: Row, **args: object) -> None:
        """Something that took no time."""
        now = time.perf_counter()
        self._keep(Span(name, row, now, now, args), self._instants)

    @contextmanager
    def measure(self, name: str, **args: object) -> Generator[None]:
        """A span of the block on the row of this thread; an error that leaves it is named."""
        span = self.begin(name, this_thread(), args)
        try:
            yield
        except BaseException as error:
            self.end(span, error=type(error).__name__)
            raise
        self.end(span)

    def lines(self) -> Iterator[str]:
        """The file, a line an event; what still lasts ends here, and nothing is recorded afterwards."""
        with self._lock:
            self._closed = True
            now = time.perf_counter()
        threads = {row: _FIRST_THREAD + number for number, row in enumerate(self._rows())}
        other = {"program": "upx", "dropped": self.dropped}
        yield f'{HEAD}\n"otherData": {json.dumps(other)},\n"traceEvents": [\n'
        separator = ""
        for event in self._events(threads, now):
            yield f"{separator}{json.dumps(event)}"
            separator = ",\n"
        yield "\n]}\n"

    def _keep(self, span: Span, kept: list[Span]) -> Span:
        with self._lock:
            if self._closed:
                return span
            if len(self._spans) + len(self._instants) < self._most:
                kept.append(span)
            else:
                self.dropped += 1
        return span

    def _rows(self) -> list[Row]:
        """Every row, in the order of its first event."""
        return list(dict.fromkeys(span.row for span in sorted((*self._spans, *self._instants), key=_when)))

    def _events(self, threads: Mapping[Row, int], now: float) -> Iterator[dict[str, Any]]:
        yield from _names(threads)
        events = [event for number, span in enumerate(self._spans, 1) for event in self._drawn(span, number, now)]
        events += [{"ph": "i", "s": "p", **self._common(span)} for span in self._instants]
        # A viewer nests what begins later into what began earlier, and of two that begin together the shorter.
        for event in sorted(events, key=lambda event: (event["ts"], "bXie".index(event["ph"]), -event.get("dur", 0))):
            row: Row = event.pop("row")
            yield {**event, "pid": _PROCESSES[row.process], "tid": threads[row]}
        if self.dropped:
            yield {
                "ph": "i", "s": "g", "name": f"{self.dropped} events were dropped", "pid": 1, "tid": _FIRST_THREAD,
                "ts": self._microseconds(now),
            }  # fmt: skip

    def _drawn(self, span: Span, number: int, now: float) -> Iterator[dict[str, Any]]:
        """One event with a duration, or two with an id for a span that may overlap others."""
        end = span.end
        common = self._common(span)
        if end is None:
            end, common["args"] = max(span.start, now), {**span.args, "unfinished": True}
        ended = self._microseconds(end)
        if span.apart:
            yield {"ph": "b", "id": f"{number:#x}", **common}
            yield {"ph": "e", "id": f"{number:#x}", **common, "ts": ended, "args": {}}
        else:
            yield {"ph": "X", **common, "dur": round(ended - common["ts"], 3)}

    def _common(self, span: Span) -> dict[str, Any]:
        ts = self._microseconds(span.start)
        return {"name": span.name, "cat": span.row.process, "ts": ts, "args": span.args, "row": span.row}

    def _microseconds(self, at: float) -> float:
        return round((at - self._began) * 1e6, 3)


@dataclass(frozen=True, slots=True)
class PictureTrace:
    """One picture's part of a trace; ``number`` is in the args of all that belongs to it."""

    tracer: Tracer
    number: int

    def stage(self, name: str, start: float, end: float, tiles: Sequence[int] = ()) -> None:
        """What this thread did for the picture, with ``tiles`` where it was for them."""
        args = {"picture": self.number, "tiles": list(tiles)} if tiles else {"picture": self.number}
        self.tracer.add(name, this_thread(), start, end, args)

    def tiles(self, indices: Sequence[int]) -> list[TileTrace]:
        """Tiles that are given away now, by their numbers in the picture."""
        now = time.perf_counter()
        return [TileTrace(self, index, now) for index in indices]


@dataclass(frozen=True, slots=True)
class TileTrace:
    """A tile on its way: the picture's part of the trace, its number there, and when it was given away."""

    picture: PictureTrace
    index: int
    at: float


def this_thread() -> Row:
    """The row of the thread that calls."""
    return Row(HOST, threading.current_thread().name)


@contextmanager
def measured(tracer: Tracer | None, name: str, **args: object) -> Generator[None]:
    """``tracer.measure``, or nothing without one."""
    if tracer is None:
        yield
        return
    with tracer.measure(name, **args):
        yield


def _when(span: Span) -> float:
    return span.start


def _names(threads: Mapping[Row, int]) -> Iterator[dict[str, Any]]:
    """What viewers call the rows, and in which order they stand."""
    for process, pid in _PROCESSES.items():
        yield _meta("process_name", pid, 0, name=process)
        yield _meta("process_sort_index", pid, 0, sort_index=pid)
    for row, tid in threads.items():
        yield _meta("thread_name", _PROCESSES[row.process], tid, name=row.name)
        yield _meta("thread_sort_index", _PROCESSES[row.process], tid, sort_index=tid)


def _meta(kind: str, pid: int, tid: int, **args: object) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}
