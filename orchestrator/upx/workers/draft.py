"""The moves that lifecycle's handlers share, on a working copy of the state: dispatch, requeue, blame, staffing.

Pure as ``lifecycle`` is: a draft is born from a state, changed, and frozen into the next one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from upx.workers import copies, pacing
from upx.workers.actions import Action, Deliver, FailTile, GaveUp, Requeued, SendBatch, SendCancel, StartWorker
from upx.workers.state import Batch, Cause, Sent, State, Worker

if TYPE_CHECKING:
    from collections.abc import Iterable

# A tile that killed so many workers is poison.
POISON = 2


@dataclass(slots=True)
class Draft:
    """A state under change, and what was decided on the way."""

    state: State
    now: float
    queue: list[Batch] = field(default_factory=list[Batch])
    workers: dict[int, Worker] = field(default_factory=dict[int, Worker])
    actions: list[Action] = field(default_factory=list[Action])

    @classmethod
    def of(cls, state: State, now: float) -> Draft:
        """A working copy."""
        return cls(state, now, list(state.queue), dict(state.workers))

    def freeze(self) -> State:
        """The next state: whatever follows from any change is done here."""
        self._dispatch()
        if self.state.varied and not self.queue:
            self._hedge()
        self._staff()
        return self.state._replace(queue=tuple(self.queue), workers=dict(self.workers))

    def note(self, **changes: Any) -> None:
        """Change fields of the state itself."""
        self.state = self.state._replace(**changes)

    # One batch on one worker

    def find(self, worker: int, batch: int, attempt: int) -> Sent | None:
        """What a worker has under that name; None for a late answer."""
        if worker not in self.workers:
            return None
        return next((s for s in self.workers[worker].sent if (s.batch.id, s.batch.attempt) == (batch, attempt)), None)

    def put(self, worker: int, old: Sent, new: Sent | None) -> None:
        """Replace what a worker has; None takes it away."""
        have = self.workers[worker]
        sent = tuple(new if s is old else s for s in have.sent)
        self.workers[worker] = have._replace(
            sent=tuple(s for s in sent if s is not None),
            progress=self.now,
            finished=have.finished if new else self.now,
        )

    def twins(self, worker: int, batch: int) -> list[tuple[int, Sent]]:
        """The copies of a worker's batch that others have, and that still count."""
        return [
            (other.id, sent)
            for other in (self.workers.values() if self.state.varied else ())
            for sent in other.sent
            if other.id != worker and sent.batch.id == batch and not sent.dropped
        ]

    def drop(self, worker: int, sent: Sent) -> None:
        """Nobody needs what a worker has any more; its end is still to come, and gives the credit back."""
        self.put(worker, sent, sent._replace(dropped=True))
        self.actions.append(SendCancel(worker, sent.batch.id, sent.batch.attempt))

    def fail(self, batch: Batch, cause: Cause, message: str, error: Exception | None = None) -> None:
        """Fail every tile of a batch that has no answer."""
        self.actions.extend(FailTile(tile, cause, message, error) for tile in batch.open)

    # Losing a worker

    def requeue(self, worker: int, batches: Iterable[Batch], *, alone: bool = False) -> None:
        """Put batches back, in their order, before everything that waits; each with its next attempt."""
        again = [
            batch._replace(attempt=batch.attempt + 1, alone=batch.alone or alone) for batch in batches if batch.open
        ]
        for batch in again:
            self.actions.append(Requeued(worker, batch.job, len(batch.open), batch.alone))
        self.queue = sorted([*again, *self.queue], key=lambda batch: (not batch.alone, batch.tiles))

    def lose(self, worker: int, *, blame: bool, unclear: bool = False) -> None:
        """Take a worker's batches away. With ``blame``, those that were being computed are under suspicion.

        If that is ``unclear``, they may come to be: see ``accuse``.
        """
        have = self.workers[worker]
        self.workers[worker] = have._replace(sent=())
        sent = [item for item in have.sent if not item.dropped and item.batch.open]
        # What another computes as well is not lost.
        sent = [item for item in sent if not self.twins(worker, item.batch.id)]
        suspects = [item for item in sent if item.started is not None] if blame else []
        # A report of a start can die with its worker. Then the first batch is tried with nothing beside it, and
        # blamed if that worker dies too.
        head = sent[0] if blame and sent and not have.started else None
        if head is not None and head.batch.alone:
            suspects, head = [head], None
        if unclear and sent:
            accused = tuple(item for item in sent if item.started is not None) or (sent[0],)
            self.note(accused={**self.state.accused, worker: accused})
        for item in suspects:
            self._suspect(worker, item.batch)
        if head is not None:
            self.requeue(worker, [head.batch], alone=True)
        self.requeue(worker, [item.batch for item in sent if item not in suspects and item is not head])

    def accuse(self, worker: int) -> None:
        """A worker did die: suspect what it computed then, wherever that is by now.

        Of what it is not known to have begun, what waits is tried with nothing beside it before it is blamed, as in
        ``lose``; what another has by now shows there what it does.
        """
        for known in self.state.accused.get(worker, ()):
            begun = known.started is not None or known.batch.alone
            waiting = [batch for batch in self.queue if batch.id == known.batch.id]
            for batch in waiting:
                self.queue.remove(batch)
                if begun:
                    self._suspect(worker, batch)
                else:
                    self.requeue(worker, [batch], alone=True)
            for other in list(self.workers.values()) if begun else ():
                for sent in other.sent:
                    if sent.batch.id == known.batch.id:
                        self.put(other.id, sent, sent._replace(batch=sent.batch._replace(kills=sent.batch.kills + 1)))

    def _suspect(self, worker: int, batch: Batch) -> None:
        """A batch's worker died of it, perhaps: each of its tiles is tried alone, and the second time is the last."""
        kills = batch.kills + 1
        if kills >= POISON and len(batch.open) == 1:
            self.fail(batch, "poison", f"it ended {kills} workers")
            self.note(failures=0)
            return
        if len(batch.tiles) == 1:
            self.requeue(worker, [batch._replace(kills=kills)], alone=True)
            return
        share = len(batch.tiles)
        singles = [
            Batch(self._new_batch_id(), batch.job, (tile,), batch.nbytes // share, batch.pixels // share, 0, kills)
            for tile in batch.open
        ]
        # Attempts grow over a tile's life, whatever batch it travels in.
        self.requeue(worker, [single._replace(attempt=batch.attempt) for single in singles], alone=True)

    @property
    def poisoned(self) -> bool:
        """Whether a tile was found to be poison."""
        return any(isinstance(action, FailTile) and action.cause == "poison" for action in self.actions)

    def _new_batch_id(self) -> int:
        number = self.state.next_batch
        self.note(next_batch=number + 1)
        return number

    # Failing to have workers

    def count_failure(self, *, limit: int, reason: str, error: Exception | None = None) -> None:
        """One more start or death without a tile done; at the limit, or with a lasting error, give up."""
        failures = self.state.failures + 1
        t = self.state.timeouts
        pause = min(t.backoff * 2 ** (failures - 1), t.backoff_most)
        self.note(failures=failures, not_before=self.now + pause)
        if error is not None or failures >= limit:
            self.give_up(reason, error)

    def give_up(self, reason: str, error: Exception | None) -> None:
        """Stop trying: with fewer workers where there are others, else everything that waits fails."""
        self.note(failures=0)
        others = sum(worker.phase in {"starting", "serving"} for worker in self.workers.values())
        if others:
            self.note(limit=others)
            return
        if self.state.varied and self.state.limit > 1:
            # Another machine may do what this one cannot.
            self.note(limit=self.state.limit - 1)
            return
        for batch in self.queue:
            self.fail(batch, "lost", reason, error)
        self.queue.clear()
        self.note(wanted=False)
        self.actions.append(GaveUp(reason, error))

    # What follows from any change

    def _dispatch(self) -> None:
        waiting, self.queue = self.queue, []
        for index, batch in enumerate(waiting):
            worker = self._worker_for(batch) if self._has_room() else None
            if worker is None:
                # Nothing overtakes: a suspect would never find a worker with nothing else to do, nor would the
                # batches that wait be looked through with every message.
                self.queue.extend(waiting[index:])
                return
            if len(batch.tiles) > 1 and (len(batch.tiles) > worker.most_tiles or batch.nbytes > worker.most_bytes):
                self._split(batch)
            else:
                self._send(worker, batch)

    def _hedge(self) -> None:
        """Nothing waits: who is idle computes once more what another will not have done for long; the faster counts."""
        idle = [worker for worker in self.workers.values() if not worker.sent and self._is_there(worker)]
        if not idle:
            return
        everywhere = (sent for worker in self.workers.values() for sent in worker.sent)
        computed = Counter(sent.batch.id for sent in everywhere if not sent.dropped)
        for worker in idle:
            slow = copies.worth(self, worker, computed)
            if slow is not None and self._takes(worker, slow.batch):
                self._send(worker, slow.batch)
                computed[slow.batch.id] += 1

    def _has_room(self) -> bool:
        return any(worker.phase == "serving" and len(worker.sent) < worker.depth for worker in self.workers.values())

    def _worker_for(self, batch: Batch) -> Worker | None:
        fitting = [worker for worker in self.workers.values() if self._takes(worker, batch)]
        if not self.state.varied:
            return min(fitting, key=lambda worker: len(worker.sent), default=None)
        # Nothing is known of a worker's pace before its second result: until then it counts as quick.
        return min(fitting, key=lambda worker: (pacing.wait(worker, batch, self.now), len(worker.sent)), default=None)

    def _is_there(self, worker: Worker) -> bool:
        return worker.phase == "serving" and self.now >= worker.rests

    def _takes(self, worker: Worker, batch: Batch) -> bool:
        if not self._is_there(worker):
            return False
        if batch.alone and worker.sent:
            return False
        if len(worker.sent) >= worker.depth or any(sent.batch.alone for sent in worker.sent):
            return False
        # A lone tile is always in credit while nothing else is there, however large.
        lone = worker.tiles >= worker.most_tiles and not worker.sent
        return lone or (len(batch.tiles) <= worker.tiles and batch.nbytes <= worker.bytes)

    def _split(self, batch: Batch) -> None:
        """More than the worker ever takes at once: the tiles travel one by one."""
        share = len(batch.tiles)
        self.queue.extend(
            batch._replace(
                id=self._new_batch_id(), tiles=(tile,), nbytes=batch.nbytes // share,
                pixels=batch.pixels // share, done=frozenset(),
            )
            for tile in batch.open
        )  # fmt: skip

    def _send(self, worker: Worker, batch: Batch) -> None:
        ahead = sum(sent.batch.pixels for sent in worker.sent)
        self.workers[worker.id] = worker._replace(
            sent=(*worker.sent, Sent(batch, self.now, ahead=ahead, packed=worker.packed)),
            tiles=worker.tiles - len(batch.tiles),
            bytes=worker.bytes - batch.nbytes,
            progress=worker.progress if worker.sent else self.now,
        )
        self.actions.append(SendBatch(worker.id, batch, worker.packed))

    def _staff(self) -> None:
        """Start workers while there is more work than workers; after a failure one at a time."""
        busy = sum(not sent.dropped for worker in self.workers.values() for sent in worker.sent)
        want = min(self.state.limit, max(len(self.queue) + busy, int(self.state.wanted)))
        while self.now >= self.state.not_before:
            # Elsewhere a worker that leaves has its place until it has left.
            counted = [worker for worker in self.workers.values() if worker.phase != "leaving" or self.state.varied]
            starting = any(worker.phase == "starting" for worker in counted)
            if len(counted) >= want or (self.state.failures and starting):
                return
            number = self.state.next_worker
            self.workers[number] = Worker(number)
            self.note(next_worker=number + 1)
            self.actions.append(StartWorker(number))

    def deliver(self, sent: Sent, index: int, payload: object) -> None:
        """Complete one tile, unless nobody wants it any more."""
        if not sent.dropped:
            self.actions.append(Deliver(sent.batch.tiles[index], payload))
