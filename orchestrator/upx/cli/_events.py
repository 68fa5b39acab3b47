"""What the host's reports mean to people: which are worth a line, and which only with ``-v``."""

from __future__ import annotations

from dataclasses import dataclass

from upx.venvs.venv import Progress
from upx.workers import events


@dataclass(frozen=True, slots=True)
class Told:
    """A report in words. ``state``: what is going on now, for a status line; else a line for ``-v`` alone."""

    words: str
    state: bool = False
    share: float | None = None


def tell(event: object) -> Told:
    """The words for a report; one of an unknown kind is told as it is."""
    if isinstance(event, Progress):
        return _build(event)
    if isinstance(event, events.LoadProgress):
        share = event.done / event.total if event.total else None
        return Told(f"loading the model: {event.stage}", state=True, share=share)
    return Told(_worker(event))


def _build(progress: Progress) -> Told:
    share = progress.done / progress.total if progress.total and progress.done is not None else None
    return Told(f"environment: {progress.message}", state=True, share=share)


def _worker(event: object) -> str:
    match event:
        case events.WorkerStarting(worker, pid):
            return f"{worker}: started, process {pid}"
        case events.WorkerAdopted(worker, pid):
            return f"{worker}: was running already, process {pid}"
        case events.WorkerReady(worker, capabilities, seconds):
            return f"{worker}: ready on {capabilities.device} after {seconds:.2f} s"
        case events.WorkerDied(worker, reason):
            return f"{worker}: died: {reason}"
        case events.WorkerEvicted(worker, backend):
            return f"{worker}: asked to leave, its memory is needed ({backend})"
        case events.TileRequeued(worker, job, tiles, alone):
            return f"{worker}: {tiles} tiles of job {job} tried again{', each by itself' if alone else ''}"
        case events.LogLine(worker, level, message):
            return f"{worker}: {level}: {message}"
        case _:
            return str(event)
