"""The trace of a command: where it goes, and what the host's reports add to it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from upx.cli._console import Console
    from upx.trace import Tracer


@contextmanager
def recording(path: Path | None, console: Console) -> Generator[Tracer | None]:
    """``traced`` of ``path``, and what people are told of it; nothing is loaded without one."""
    if path is None:
        yield None
        return
    from upx.pipeline.trace_file import traced

    with traced(path) as tracer:
        yield tracer
    if tracer is not None and tracer.dropped:
        console.note(f"upx: the trace lacks its last {tracer.dropped} events: it was full")


def hearing(on_event: Callable[[object], None], tracer: Tracer | None) -> Callable[[object], None]:
    """``on_event``, which hears everything; how long each worker took to be ready goes into the trace too."""
    if tracer is None:
        return on_event

    def heard(event: object) -> None:
        from upx.trace import WORKERS, Row
        from upx.workers.events import WorkerReady

        if isinstance(event, WorkerReady):
            now = time.perf_counter()
            args = {"worker": event.worker, "device": event.capabilities.device}
            span = tracer.begin("start", Row(WORKERS, event.worker), args, start=now - event.seconds, apart=True)
            tracer.end(span, end=now)
        on_event(event)

    return heard
