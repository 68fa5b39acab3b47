"""The life of workers and tiles as a pure function: (state, happening) -> (state, actions). No I/O, no clock.

What it promises, for any order of happenings: a tile is answered exactly once; an answer counts only under the
(batch, attempt) that its worker has; what a lost worker had goes to another with a higher attempt; only what was
being computed when a worker died is suspected, tried alone, and failed as poison after the second death; restarts
back off and end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upx.workers.actions import Action, KillWorker, SendCancel, SendPing
from upx.workers.draft import Draft
from upx.workers.happenings import (
    BatchCancelled,
    BatchFailed,
    BatchRefused,
    BatchStarted,
    Credited,
    Died,
    Happening,
    JobCancelled,
    Leaving,
    Ponged,
    Serving,
    SessionLost,
    StartFailed,
    Submitted,
    Tick,
    TileDone,
    Wanted,
)
from upx.workers.state import Batch, Sent, State, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

# Durations kept per size of batch: their largest stands for the 99th percentile.
REMEMBERED = 64
# A pause of the whole host (suspended, stopped by ^Z, starved): deadlines do not run while nobody listens.
PAUSE_S = 3.0
REST_S = 0.25


def step(state: State, happening: Happening) -> tuple[State, list[Action]]:
    """What follows from a happening."""
    draft = Draft.of(state, happening.now)
    HANDLERS[type(happening)](draft, happening)
    frozen = draft.freeze()
    return frozen, draft.actions


def busy_deadline(state: State, batch: Batch) -> float:
    """Seconds that a started batch may take."""
    t = state.timeouts
    seen = state.seen.get(batch.pixels)
    return max(t.busy, t.busy_factor * max(seen)) if seen else max(t.busy, t.busy_first)


# --- the host's side ---------------------------------------------------------------------------------------------


def _submitted(draft: Draft, it: Submitted) -> None:
    number = draft.state.next_batch
    draft.note(next_batch=number + 1)
    draft.queue.append(Batch(number, it.job, it.tiles, it.nbytes, it.pixels))


def _wanted(draft: Draft, it: Wanted) -> None:
    del it
    if not any(worker.phase == "serving" for worker in draft.workers.values()):
        draft.note(wanted=True)


def _job_cancelled(draft: Draft, it: JobCancelled) -> None:
    for batch in [batch for batch in draft.queue if batch.job == it.job]:
        draft.queue.remove(batch)
        draft.fail(batch, "cancelled", "cancelled")
    for worker in list(draft.workers.values()):
        for sent in [s for s in worker.sent if s.batch.job == it.job and not s.dropped]:
            draft.fail(sent.batch, "cancelled", "cancelled")
            draft.put(worker.id, sent, sent._replace(dropped=True))
            draft.actions.append(SendCancel(worker.id, sent.batch.id, sent.batch.attempt))


# --- one worker's answers ----------------------------------------------------------------------------------------


def _batch_started(draft: Draft, it: BatchStarted) -> None:
    sent = draft.find(it.worker, it.batch, it.attempt)
    if sent is not None and sent.started is None:
        draft.put(it.worker, sent, sent._replace(started=draft.now))


def _tile_done(draft: Draft, it: TileDone) -> None:
    if it.credit:
        _credited(draft, Credited(it.now, it.worker, 1, it.credit))
    sent = draft.find(it.worker, it.batch, it.attempt)
    if sent is None or it.index in sent.batch.done or not 0 <= it.index < len(sent.batch.tiles):
        return
    draft.deliver(sent, it.index, it.payload)
    batch = sent.batch._replace(done=sent.batch.done | {it.index})
    draft.put(it.worker, sent, sent._replace(batch=batch) if batch.open else None)
    draft.note(failures=0)
    if not batch.open:
        # Quicker than anybody looked whether it was begun: no longer than since it was sent.
        began = sent.at if sent.started is None else sent.started
        took = (*draft.state.seen.get(batch.pixels, ()), draft.now - began)
        draft.note(seen={**draft.state.seen, batch.pixels: took[-REMEMBERED:]})


def _batch_failed(draft: Draft, it: BatchFailed) -> None:
    sent = draft.find(it.worker, it.batch, it.attempt)
    if sent is None:
        return
    draft.put(it.worker, sent, None)
    if sent.dropped:
        return
    if it.cause == "transient":
        _again_later(draft, it.worker, sent.batch, it.message)
    else:
        draft.fail(sent.batch, it.cause, it.message)


def _again_later(draft: Draft, worker: int, batch: Batch, message: str) -> None:
    """Try again, elsewhere or after a rest that grows; not for ever."""
    batch = batch._replace(refusals=batch.refusals + 1)
    if batch.refusals >= draft.state.timeouts.retries:
        draft.fail(batch, "lost", message)
        return
    draft.workers[worker] = draft.workers[worker]._replace(rests=draft.now + REST_S * 2**batch.refusals)
    draft.requeue(worker, [batch])


def _batch_cancelled(draft: Draft, it: BatchCancelled) -> None:
    sent = draft.find(it.worker, it.batch, it.attempt)
    if sent is None:
        return
    draft.put(it.worker, sent, None)
    if not sent.dropped:
        # It dropped what nobody had cancelled; the tiles are still wanted.
        draft.requeue(it.worker, [sent.batch])


def _batch_refused(draft: Draft, it: BatchRefused) -> None:
    worker = draft.workers.get(it.worker)
    sent = next((s for s in worker.sent if s.batch.id == it.batch), None) if worker else None
    if worker is None or sent is None:
        return
    draft.put(it.worker, sent, None)
    # It was not charged.
    _credited(draft, Credited(it.now, it.worker, len(sent.batch.tiles), sent.batch.nbytes))
    if not sent.dropped:
        _again_later(draft, it.worker, sent.batch, "the worker has no room for it")


def _credited(draft: Draft, it: Credited) -> None:
    worker = draft.workers.get(it.worker)
    if worker is not None:
        tiles = min(worker.most_tiles, worker.tiles + max(0, it.tiles))
        nbytes = min(worker.most_bytes, worker.bytes + max(0, it.bytes))
        draft.workers[it.worker] = worker._replace(tiles=tiles, bytes=nbytes)


def _ponged(draft: Draft, it: Ponged) -> None:
    worker = draft.workers.get(it.worker)
    if worker is not None:
        moved = it.tiles_done > worker.tiles_done
        draft.workers[it.worker] = worker._replace(
            unanswered=0,
            hosts=it.hosts,
            tiles_done=it.tiles_done,
            progress=draft.now if moved else worker.progress,
        )


# --- one worker's life -------------------------------------------------------------------------------------------


def _serving(draft: Draft, it: Serving) -> None:
    worker = draft.workers.get(it.worker)
    if worker is not None and worker.phase == "starting":
        tiles = max(1, it.tiles)
        draft.workers[it.worker] = Worker(
            it.worker, "serving", tiles, it.bytes, tiles, it.bytes, pinged=draft.now, progress=draft.now
        )
        draft.note(wanted=False)


def _start_failed(draft: Draft, it: StartFailed) -> None:
    if draft.workers.pop(it.worker, None) is not None:
        draft.count_failure(limit=draft.state.timeouts.starts, reason=it.reason, error=it.error)


def _session_lost(draft: Draft, it: SessionLost) -> None:
    worker = draft.workers.get(it.worker)
    if worker is not None and worker.phase == "serving":
        draft.lose(it.worker, blame=False)
        draft.workers[it.worker] = Worker(it.worker)


def _leaving(draft: Draft, it: Leaving) -> None:
    worker = draft.workers.get(it.worker)
    if worker is not None and worker.phase == "serving":
        draft.workers[it.worker] = worker._replace(phase="leaving")


def _died(draft: Draft, it: Died) -> None:
    worker = draft.workers.get(it.worker)
    if worker is None:
        return
    counts = it.blame and bool(worker.sent)
    draft.lose(it.worker, blame=it.blame)
    del draft.workers[it.worker]
    if counts and not draft.poisoned:
        draft.count_failure(limit=draft.state.timeouts.deaths, reason=it.reason)


# --- time --------------------------------------------------------------------------------------------------------


def _tick(draft: Draft, it: Tick) -> None:
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
    elif draft.now - worker.pinged >= t.ping:
        # A C call that holds the interpreter keeps it from answering: a started batch has its own deadline.
        if worker.unanswered >= t.misses and not worker.started:
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


HANDLERS: dict[type[Happening], Callable[[Draft, Any], None]] = {
    Submitted: _submitted,
    Wanted: _wanted,
    JobCancelled: _job_cancelled,
    Tick: _tick,
    Serving: _serving,
    StartFailed: _start_failed,
    SessionLost: _session_lost,
    Leaving: _leaving,
    Died: _died,
    BatchStarted: _batch_started,
    TileDone: _tile_done,
    BatchFailed: _batch_failed,
    BatchCancelled: _batch_cancelled,
    BatchRefused: _batch_refused,
    Credited: _credited,
    Ponged: _ponged,
}
