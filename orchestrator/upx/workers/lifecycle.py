"""The life of workers and tiles as a pure function: (state, happening) -> (state, actions). No I/O, no clock.

What it promises, for any order of happenings: a tile is answered exactly once; an answer counts only under the
(batch, attempt) that its worker has; what a lost worker had goes to another with a higher attempt; only what was
being computed when a worker died is suspected, tried alone, and failed as poison after the second death; restarts
back off and end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upx.workers import deadlines, pacing
from upx.workers.actions import Action, SendCancel
from upx.workers.draft import Draft
from upx.workers.happenings import (
    BatchCancelled,
    BatchFailed,
    BatchRefused,
    BatchStarted,
    Credited,
    Died,
    Explained,
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
    Widened,
)
from upx.workers.packing import Shape
from upx.workers.state import Batch, Sent, State, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

# Durations kept per size of batch, whose largest stands for the 99th percentile; and sizes, those of late.
REMEMBERED, SIZES = 64, 64
REST_S = 0.25


def step(state: State, happening: Happening) -> tuple[State, list[Action]]:
    """What follows from a happening."""
    draft = Draft.of(state, happening.now)
    HANDLERS[type(happening)](draft, happening)
    frozen = draft.freeze()
    return frozen, draft.actions


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
        for sent in [s for s in draft.workers[worker.id].sent if s.batch.job == it.job and not s.dropped]:
            for other, twin in draft.twins(worker.id, sent.batch.id):
                draft.drop(other, twin)
            draft.fail(sent.batch, "cancelled", "cancelled")
            draft.drop(worker.id, sent)


def _widened(draft: Draft, it: Widened) -> None:
    draft.note(limit=max(draft.state.limit, it.limit), varied=True)


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
    for other, twin in [] if sent.dropped else draft.twins(it.worker, batch.id):
        _answered_elsewhere(draft, other, twin, batch)
    if draft.state.varied and not batch.open:
        count = len(batch.tiles)
        result = Shape(batch.pixels, it.seconds * count, it.nbytes * count, it.codec)
        draft.workers[it.worker] = pacing.learned(draft.workers[it.worker], sent, draft.now, result)
    draft.put(it.worker, sent, sent._replace(batch=batch) if batch.open else None)
    draft.note(failures=0)
    if not batch.open:
        # Quicker than anybody looked whether it was begun: no longer than since it was sent.
        began = sent.at if sent.started is None else sent.started
        seen = dict(draft.state.seen)
        took = (*seen.pop(batch.pixels, ()), draft.now - began)
        seen[batch.pixels] = took[-REMEMBERED:]
        if len(seen) > SIZES:
            del seen[next(iter(seen))]
        draft.note(seen=seen)


def _answered_elsewhere(draft: Draft, worker: int, twin: Sent, batch: Batch) -> None:
    """A copy of a batch whose tile another worker has answered."""
    draft.put(worker, twin, twin._replace(batch=batch, dropped=not batch.open))
    if not batch.open:
        draft.actions.append(SendCancel(worker, twin.batch.id, twin.batch.attempt))


def _batch_failed(draft: Draft, it: BatchFailed) -> None:
    sent = draft.find(it.worker, it.batch, it.attempt)
    if sent is None:
        return
    draft.put(it.worker, sent, None)
    twins = draft.twins(it.worker, it.batch)
    if sent.dropped or (it.cause == "transient" and twins):
        return
    for other, twin in twins:
        draft.drop(other, twin)
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
    if not sent.dropped and not draft.twins(it.worker, it.batch):
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
    if not sent.dropped and not draft.twins(it.worker, it.batch):
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
            it.worker, "serving", tiles, it.bytes, tiles, it.bytes, pinged=draft.now, progress=draft.now, far=it.far
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
    draft.lose(it.worker, blame=it.blame, unclear=it.unclear)
    del draft.workers[it.worker]
    if counts and not draft.poisoned:
        draft.count_failure(limit=draft.state.timeouts.deaths, reason=it.reason)


def _explained(draft: Draft, it: Explained) -> None:
    if it.died:
        draft.accuse(it.worker)
    draft.note(accused={number: what for number, what in draft.state.accused.items() if number != it.worker})


HANDLERS: dict[type[Happening], Callable[[Draft, Any], None]] = {
    Submitted: _submitted,
    Wanted: _wanted,
    JobCancelled: _job_cancelled,
    Tick: deadlines.tick,
    Widened: _widened,
    Serving: _serving,
    StartFailed: _start_failed,
    SessionLost: _session_lost,
    Leaving: _leaving,
    Died: _died,
    Explained: _explained,
    BatchStarted: _batch_started,
    TileDone: _tile_done,
    BatchFailed: _batch_failed,
    BatchCancelled: _batch_cancelled,
    BatchRefused: _batch_refused,
    Credited: _credited,
    Ponged: _ponged,
}
