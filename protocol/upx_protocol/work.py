"""What the compute thread does next and what is answered for it: loads, unloads and batches, from request to answer.

Pure: no socket, no thread, no clock. At most one task is with the compute thread at any time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, Optional, Union

from upx_protocol.actions import (
    BatchEnded,
    BatchTask,
    Failure,
    LoadEnded,
    LoadTask,
    Run,
    Task,
    TilePlaced,
    UnloadEnded,
    UnloadTask,
)
from upx_protocol.arrays import ITEM_SIZES
from upx_protocol.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Credit,
    Load,
    Loaded,
    Progress,
    Reject,
    Started,
    TileDone,
    Unload,
    Upscale,
    Want,
)
from upx_protocol.resident import Resident, Waiter
from upx_protocol.ring import COMPLAINT

if TYPE_CHECKING:
    from upx_protocol.actions import Advanced
    from upx_protocol.replies import Replies
    from upx_protocol.sessions import Session, Sessions, Ticket
    from upx_protocol.terms import Terms

LEAVING = Failure("transient", retryable=True, message="the worker is leaving")
STALE = Failure("input", retryable=False, message="load")
#: No manifest has longer names, and every log would repeat them. Digests are repeated in answers, beside other text.
LONGEST_MODEL, LONGEST_DIGEST = 80, 128
NO_MODEL = Failure("input", retryable=False, message=f"no model has a name of more than {LONGEST_MODEL} characters")
NO_DIGEST = Failure("input", retryable=False, message=f"no digest has more than {LONGEST_DIGEST} characters")
ANOTHER_MODEL = "another host uses another model"


class Work:
    """The queue in front of the compute thread, and the model it holds.

    ``running``: what it computes; ``cancelled``: a batch that its host does not want any more. Others only look.
    """

    def __init__(
        self, sessions: Sessions, replies: Replies, token: Callable[[], str], terms: Terms, *, serves: bool = False
    ) -> None:
        self._terms, self._serves = terms, serves
        self.resident = Resident(own_keys=serves)
        self.closed = False
        self.tiles_done = self.pixels_done = 0
        self._sessions, self._replies, self._token = sessions, replies, token
        self._ready = False
        self._control: Deque[Union[LoadTask, UnloadTask]] = deque()
        self.running: Optional[Task] = None
        self.cancelled = False
        self._placed = 0

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self.running is None and not self._control and not self._sessions.queued

    @property
    def computing(self) -> Optional[Ticket]:
        """The batch that is being computed."""
        return self.running.ticket if isinstance(self.running, BatchTask) else None

    @property
    def queued(self) -> int:
        """Tiles that wait or are being computed, of all hosts."""
        computing = self.computing
        return self._sessions.queued + (computing.tiles if computing is not None else 0)

    def open(self) -> None:
        """The backend is imported: tasks may begin."""
        self._ready = True
        self.dispatch()

    # Models

    def load(self, session: Session, message: Load) -> None:
        """Load, wait for the load that is under way, or answer at once."""
        resident = self.resident
        if self.closed:
            self._replies.fail(session.name, message.id, 0, LEAVING)
        elif self._serves and len(message.model) > LONGEST_MODEL:
            self._replies.fail(session.name, message.id, 0, NO_MODEL)
        elif max(len(message.key), len(message.weights)) > LONGEST_DIGEST:
            self._replies.fail(session.name, message.id, 0, NO_DIGEST)
        elif resident.is_coming(message):
            resident.waiters.append(Waiter(session.name, message))
        elif resident.is_held(message) and not self._control:
            self._replies.say(session.name, resident.answer(message, 0.0))
        elif self._occupied(session):
            self._replies.say(session.name, Reject(message.id, "busy", ANOTHER_MODEL))
        else:
            resident.expect(message, Waiter(session.name, message))
            self._control.append(LoadTask(message, self._token()))
            self.dispatch()

    def unload(self, session: Session, message: Unload) -> None:
        """Give the model's memory back, unless another host uses it."""
        if self._occupied(session):
            self._replies.say(session.name, Reject(message.id, "busy", "another host uses the model"))
            return
        self._control.append(UnloadTask(message.id, session.name))
        self.dispatch()

    def _occupied(self, session: Session) -> bool:
        """Whether replacing the model would take it, or one on its way, from a host."""
        if self.resident.coming is not None:
            return True
        return bool(self.resident.key) and any(not other.left_behind_by(session) for other in self._sessions.all())

    def advanced(self, outcome: Advanced) -> None:
        """Pass a load's progress on to all who wait for it."""
        for waiter in self.resident.waiters:
            progress = Progress(waiter.id, outcome.stage, outcome.done, outcome.total)
            self._replies.say(waiter.session, progress)

    # Batches

    def upscale(self, session: Session, ticket: Ticket) -> None:
        """Queue a batch, or say why not."""
        request = ticket.request
        if not session.charge(ticket.tiles, ticket.nbytes):
            self._replies.say(session.name, Reject(request.id, "credit", "more than the credit allows"))
            return
        refusal = self._refusal(session, ticket)
        if refusal is not None:
            self._give_up(ticket, refusal)
            return
        self._sessions.push(session, ticket)
        if not request.outs:
            self._replies.say(session.name, Accepted(request.id, request.attempt))
        self.dispatch()

    def _refusal(self, session: Session, ticket: Ticket) -> Optional[Failure]:
        request, computing = ticket.request, self.computing
        if self.closed:
            return LEAVING
        if not self.resident.holds(request.load_id):
            return STALE
        if request.out_dtype not in ITEM_SIZES:
            return Failure("input", False, f"out_dtype {request.out_dtype[:32]!r}")
        if (unfit := self._terms.refusal(request, self.resident.scale)) is not None:
            return unfit
        mine = list(session.queue)
        if computing is not None and computing.session == session.name:
            mine.append(computing)
        if any(other.key == ticket.key for other in mine):
            return Failure("input", False, "a batch of this id and attempt is here already")
        return self._slots_refused(session, request) if request.outs else None

    def _slots_refused(self, session: Session, request: Upscale) -> Optional[Failure]:
        """Slots that must not be used are no fault of the tiles: they can be sent again, inline."""
        if session.ring is None:
            return Failure("input", False, "no shared memory was agreed on")
        scale, out = self.resident.scale, request.outs[0]
        height, width = request.bufs[0].shape[:2]
        shape = (height * scale, width * scale, 3)
        if (out.shape, out.dtype) != (shape, request.out_dtype):
            return Failure("transient", True, f"{COMPLAINT}{out.dtype} {out.shape} is no room for {shape}")
        why = session.lends(request)
        return Failure("transient", True, why) if why else None

    def cancel(self, session: Session, message: Cancel) -> None:
        """Drop a queued batch at once; one that is being computed answers when it ends."""
        key, computing = (message.id, message.attempt), self.computing
        if computing is not None and (computing.session, computing.key) == (session.name, key):
            self.cancelled = True
            return
        ticket = self._sessions.withdraw(session, key)
        self._replies.say(session.name, Cancelled(message.id, message.attempt))
        if ticket is not None:
            self._give_back(ticket)

    def _give_up(self, ticket: Ticket, failure: Failure, placed: int = 0) -> None:
        self._replies.fail(ticket.session, ticket.request.id, ticket.request.attempt, failure)
        self._give_back(ticket, placed)

    def _give_back(self, ticket: Ticket, placed: int = 0) -> None:
        """The credit of every tile but those that lie in the ring and were answered."""
        left = ticket.request.bufs[placed:]
        if left:
            self._replies.say(ticket.session, Credit(len(left), sum(buffer.nbytes for buffer in left)))

    # The compute thread

    def dispatch(self) -> None:
        """Give the compute thread its next task when it is free: loads before batches."""
        if self.running is not None or not self._ready:
            return
        if self._control:
            self.running = self._control.popleft()
            self.resident.begin()
            self._replies.do(Run(self.running))
            return
        ticket = self._next_ticket()
        if ticket is not None:
            self.running, self.cancelled, self._placed = BatchTask(ticket), False, 0
            if not ticket.request.outs:
                # Said first: when the batch kills the worker, the host has to know which one it was. One in the ring
                # is noted there.
                self._replies.say(ticket.session, Started(ticket.request.id, ticket.request.attempt))
            self._replies.do(Run(self.running))

    def _next_ticket(self) -> Optional[Ticket]:
        ticket = self._sessions.pop()
        while ticket is not None and not self.resident.holds(ticket.request.load_id):
            # The model was replaced while the batch waited.
            self._give_up(ticket, STALE)
            ticket = self._sessions.pop()
        return ticket

    def ended(self, outcome: Union[LoadEnded, UnloadEnded, BatchEnded]) -> None:
        """The compute thread is free; answer for what it did."""
        task, self.running = self.running, None
        cancelled, placed = self.cancelled, self._placed
        if isinstance(outcome, BatchEnded) and isinstance(task, BatchTask):
            # The next batch starts before this one's answers are sent.
            self.dispatch()
            self._batch_ended(task.ticket, outcome, cancelled=cancelled, placed=placed)
        elif isinstance(outcome, LoadEnded) and isinstance(task, LoadTask):
            self._load_ended(task, outcome)
        elif isinstance(outcome, UnloadEnded) and isinstance(task, UnloadTask):
            if outcome.failure is not None:
                self._replies.fail(task.session, task.id, 0, outcome.failure)
            else:
                self._replies.say(task.session, Loaded(task.id, ""))
        self.dispatch()

    def _load_ended(self, task: LoadTask, outcome: LoadEnded) -> None:
        for waiter in self.resident.end(task.load_id, outcome.result, outcome.seconds, outcome.weights):
            session = self._sessions.named(waiter.session)
            if outcome.failure is not None and outcome.wanted and session is not None and session.files:
                # In the place of a failure: it is the host's turn.
                self._replies.say(waiter.session, Want(waiter.id, outcome.wanted, outcome.failure.message))
            elif outcome.failure is not None:
                self._replies.fail(waiter.session, waiter.id, 0, outcome.failure)
            elif self.resident.is_held(waiter.request):
                self._replies.say(waiter.session, self.resident.answer(waiter.request, outcome.seconds))
            else:
                # It waited for weights that nobody knew yet.
                self._replies.say(waiter.session, Reject(waiter.id, "busy", ANOTHER_MODEL))

    def placed(self, outcome: TilePlaced) -> None:
        """Answer for a tile whose result lies in its slot.

        The answer alone gives slot and credit back: small messages are what costs time here.
        """
        ticket = self.computing
        if ticket is None or self.cancelled:
            return
        request, index = ticket.request, outcome.index
        self._placed += 1
        self._count(ticket, 1)
        done = TileDone(request.id, request.attempt, index, (request.outs[index],), outcome.seconds)
        self._replies.say(ticket.session, done)
        session = self._sessions.named(ticket.session)
        if session is not None:
            session.refund(1, request.bufs[index].nbytes)

    def _count(self, ticket: Ticket, tiles: int) -> None:
        self.tiles_done += tiles
        self.pixels_done += tiles * ticket.pixels // ticket.tiles

    def _batch_ended(self, ticket: Ticket, outcome: BatchEnded, *, cancelled: bool, placed: int) -> None:
        request: Upscale = ticket.request
        self._count(ticket, len(outcome.results))
        if cancelled:
            self._replies.say(ticket.session, Cancelled(request.id, request.attempt))
            self._give_back(ticket, placed)
        elif outcome.failure is not None:
            self._give_up(ticket, outcome.failure, placed)
        else:
            share = outcome.seconds / ticket.tiles
            for index, array in enumerate(outcome.results):
                done = TileDone(request.id, request.attempt, index, (), share)
                self._replies.say(ticket.session, done, (array,))
                self._replies.say(ticket.session, Credit(1, request.bufs[index].nbytes))
