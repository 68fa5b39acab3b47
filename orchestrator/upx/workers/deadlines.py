"""What time does to workers: deadlines of batches, pings that are not answered, pauses of the host itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx.workers.actions import KillWorker, SendPing

if TYPE_CHECKING:
    from upx.workers.draft import Draft
    from upx.workers.happenings import Tick
    from upx.workers.state import Batch, Sent, State, Worker

# A pause of the whole host (suspended, stopped by ^Z, starved): deadlines do not run while nobody listens.
PAUSE_S = 3.0


def busy_deadline(state: State, batch: Batch) -> float:
    """Seconds that a started batch may take."""
    t = state.timeouts
    seen = state.seen.get(batch.pixels)
    return max(t.busy, t.busy_factor * max(seen)) if seen else max(t.busy, t.busy_first)


def tick(draft: Draft, it: Tick) -> None:
    """Time has passed: end what takes too long or does not answer, and ask the others whether they are there."""
    pause = it.now - draft.state.ticked
    if draft.state.ticked and pause > PAUSE_S:
        _forgive(draft, pause)
    draft.note(ticked=it.now)
    for worker in list(draft.workers.values()):
        if worker.phase in {"serving", "leaving"}:
            _watch(draft, worker)


def _forgive(draft: Draft, pause: float) -> None:
    for worker in list(draft.workers.values()):
        draft.workers[worker.id] = worker._replace(
            pinged=worker.pinged + pause, unanswered=0, progress=worker.progress + pause,
            sent=tuple(s._replace(started=None if s.started is None else s.started + pause) for s in worker.sent),
        )  # fmt: skip


def _watch(draft: Draft, worker: Worker) -> None:
    late = next((sent for sent in worker.sent if _is_late(draft, sent)), None)
    t = draft.state.timeouts
    if late is not None:
        limit = busy_deadline(draft.state, late.batch)
        _kill(draft, worker, f"a tile took more than {limit:g} s", blame=True)
    elif worker.sent and not worker.started and draft.now - worker.progress > _patience(draft, worker):
        _kill(draft, worker, "a tile was not begun in time", blame=False)
    elif draft.now - worker.pinged >= (t.far_ping if worker.far else t.ping):
        # A C call that holds the interpreter keeps it from answering: a started batch has its own deadline.
        if worker.unanswered >= (t.far_misses if worker.far else t.misses) and not worker.started:
            _kill(draft, worker, f"{worker.unanswered} pings were not answered", blame=False)
            return
        draft.workers[worker.id] = worker._replace(pinged=draft.now, unanswered=worker.unanswered + 1)
        draft.actions.append(SendPing(worker.id))


def _is_late(draft: Draft, sent: Sent) -> bool:
    return sent.started is not None and draft.now - sent.started > busy_deadline(draft.state, sent.batch)


def _patience(draft: Draft, worker: Worker) -> float:
    return max(busy_deadline(draft.state, sent.batch) for sent in worker.sent)


def _kill(draft: Draft, worker: Worker, reason: str, *, blame: bool) -> None:
    """End a worker, or leave it to the other hosts that it still answers."""
    abandon = worker.hosts > 1 and worker.unanswered <= 1
    counts = bool(worker.sent)
    draft.lose(worker.id, blame=blame)
    draft.workers[worker.id] = draft.workers[worker.id]._replace(phase="ending")
    draft.actions.append(KillWorker(worker.id, reason, abandon))
    if counts and not draft.poisoned:
        draft.count_failure(limit=draft.state.timeouts.deaths, reason=reason)
