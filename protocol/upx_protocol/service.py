"""What a worker answers and does next: every message, outcome and tick of the clock becomes a list of actions.

Pure: no socket, no thread, no clock. ``loop`` feeds it and carries the actions out.

    host's message ──> receive() ─┐
    compute's outcome > outcome() ┼──> [Send, Run, Retire, Leave]
    clock, signals ──> tick() … ──┘
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from upx_protocol.actions import (
    Action,
    Advanced,
    Imported,
    ImportFailed,
    Kept,
    Leave,
    Logged,
    Outcome,
    Retire,
    Send,
    TilePlaced,
)
from upx_protocol.echoing import echo
from upx_protocol.files import FILES
from upx_protocol.mapping import Attach, map_ring
from upx_protocol.messages import (
    Bye,
    Cancel,
    Chunk,
    Credit,
    Drain,
    Drained,
    Echo,
    Hello,
    Load,
    Log,
    Offer,
    Ping,
    Ready,
    Reject,
    Ring,
    Unload,
    Upscale,
)
from upx_protocol.patience import GAVE_UP, Patience
from upx_protocol.pulse import Pulse, Status
from upx_protocol.receiving import Receiving
from upx_protocol.reception import Reception
from upx_protocol.replies import Replies, weight
from upx_protocol.sessions import Session, Sessions, Ticket
from upx_protocol.terms import Terms
from upx_protocol.work import Work

if TYPE_CHECKING:
    from upx_protocol.codec import Received
    from upx_protocol.options import WorkerOptions


#: Bytes of results that may wait for one client of another machine when its next batch is begun.
MOST_UNSENT = 512 * 1024 * 1024


def new_token() -> str:
    """A name that nobody guesses: for sessions and loads."""
    return secrets.token_hex(12)


class Service:
    """The worker's side of every conversation.

    ``memory`` returns the resident set in bytes, for ``Pong``; ``attach`` maps a ring, None where hosts are far away.
    """

    def __init__(
        self,
        options: WorkerOptions,
        *,
        now: float,
        pid: int = 0,
        token: Callable[[], str] = new_token,
        memory: Callable[[], int] = int,
        attach: Optional[Attach] = None,
    ) -> None:
        most = MOST_UNSENT if options.serves else 0
        self.sessions = Sessions(credit_tiles=options.credit_tiles, credit_bytes=options.credit_bytes, most_unsent=most)
        self._replies = Replies(self.sessions)
        self.work = Work(self.sessions, self._replies, token, Terms.of(options), serves=options.serves)
        self.receiving = Receiving(self.sessions, self._replies)
        self.reception = Reception(options, self.sessions, pid=pid)
        self._pulse = Pulse(self.sessions, self.work, memory, now)
        self._patience = Patience(self.sessions, self.work, options.batch_s)
        self._options, self._token = options, token
        self._attach = attach
        self._ready: Optional[Ready] = None
        self._alone_since = now
        self._drainers: List[Tuple[str, int]] = []
        self._drain_until: Optional[float] = None
        self._status = 0
        self._left = False
        self._handlers: Dict[type, Callable[[Session, Any], None]] = {
            Load: self.work.load,
            Unload: self.work.unload,
            Cancel: self.work.cancel,
            Ring: self._ring,
            Offer: self.receiving.offer,
            Drain: self._drain,
            Bye: self._bye,
        }

    def receive(self, peer: bytes, received: Received, now: float, client: str = "") -> List[Action]:
        """A message that was decoded. Kinds that only workers send, and unknown ones, are ignored.

        ``client``: the key that its sender showed at the door, empty where there is none.
        """
        message = received.message
        session = self.sessions.find(peer, received.session)
        if session is not None:
            session.seen = now
        if isinstance(message, Hello):
            self._hello(peer, message, now, client)
        elif isinstance(message, Ping) and (session is not None or not received.session):
            self._replies.say_to_peer(peer, self._pulse.pong(message, self._ready, now), received.session)
        elif session is not None:
            if isinstance(message, Upscale):
                self.work.upscale(session, Ticket(session.name, message, received.buffers, session.ring))
            elif isinstance(message, Echo):
                echo(self.sessions, self._replies, session, message, received.buffers)
            elif isinstance(message, Chunk):
                self.receiving.chunk(session, message, received.buffers)
            elif type(message) in self._handlers:
                self._handlers[type(message)](session, message)
        elif isinstance(message, (Upscale, Echo, Chunk, Ping)) or type(message) in self._handlers:
            reject = Reject(getattr(message, "id", 0), "session", "no such session")
            self._replies.say_to_peer(peer, reject, received.session)
        return self._take(now)

    def malformed(self, peer: bytes, why: str, now: float) -> List[Action]:
        """Bytes that are no message."""
        self._replies.say_to_peer(peer, Reject(0, "malformed", why[:200]))
        return self._take(now)

    def outcome(self, outcome: Outcome, now: float) -> List[Action]:
        """What the compute thread, or the log, reports."""
        if isinstance(outcome, Logged):
            # With this machine's paths, and of one client's work: hosts of others have no business with it.
            if not self._options.serves:
                self._replies.say_all(Log(outcome.level, outcome.logger, outcome.message, outcome.time))
        elif isinstance(outcome, Advanced):
            self.work.advanced(outcome)
        elif isinstance(outcome, TilePlaced):
            self.work.placed(outcome)
        elif isinstance(outcome, Kept):
            self.receiving.kept(outcome, now)
        elif isinstance(outcome, Imported):
            self._imported(outcome)
        elif isinstance(outcome, ImportFailed):
            for session in self.sessions.all():
                self._replies.fail(session.name, 0, 0, outcome.failure)
            self._leave(1, "the backend cannot be imported")
        else:
            self.work.ended(outcome)
            self._after(outcome.failure is not None and outcome.failure.final)
        return self._take(now)

    def tick(self, now: float, *, unheard: float = 0.0) -> List[Action]:
        """Time has passed, ``unheard`` seconds of it without the loop listening."""
        self.sessions.forgive(unheard)
        for session in self.sessions.silent(now, self._options.silence_s):
            self.sessions.close(session)
        self.receiving.tick(now, unheard=unheard)
        self.work.dispatch()  # Somebody may have read what kept its next batch from being begun.
        actions = self._take(now)
        idle_s = self._options.idle_s
        alone = not len(self.sessions) and not self._options.tied
        if alone and idle_s is not None and now - self._alone_since >= idle_s:
            self._leave(0, "idle")
        lost = self._patience.lost(now) if self._options.serves else ""
        if lost:
            # Who waited for its load behind that has not waited in vain.
            self.work.advanced(Advanced("waiting", 0.0, 0.0))
            self._leave(GAVE_UP, lost)
        if self._drain_until is not None and now >= self._drain_until:
            self._leave(self._status, "not everything was finished in time")
        return actions + self._take(now)

    def drain(self, now: float, *, within: Optional[float] = None) -> List[Action]:
        """Finish what is queued, take nothing new, then leave; after ``within`` seconds in any case."""
        self._close()
        if within is not None and self._drain_until is None:
            self._drain_until = now + within
        return self._take(now)

    def revoked(self, client: str, now: float) -> List[Action]:
        """A key may not be here any more: its sessions end, with everything of theirs."""
        for session in self.sessions.of_client(client):
            self._replies.say(session.name, Reject(0, "revoked", "this key was revoked"))
            self.sessions.close(session)
        return self._take(now)

    def gone(self, peer: bytes, now: float) -> List[Action]:
        """A peer that cannot be reached any more."""
        session = self.sessions.of_peer(peer)
        if session is not None:
            self.sessions.close(session)
        return self._take(now)

    def sent(self, send: Send) -> None:
        """A message went out: credit counts as given back from here on."""
        session = self.sessions.named(send.session)
        if session is not None:
            session.unsent -= weight(send.arrays)
        if isinstance(send.message, Credit) and session is not None:
            session.refund(send.message.tiles, send.message.bytes)

    def lives(self, session: str) -> bool:
        """Whether a session is still there."""
        return self.sessions.named(session) is not None

    @property
    def status(self) -> Status:
        """For the registry entry."""
        return Status(self.work.resident.model, len(self.sessions), self.work.computing is not None)

    def _hello(self, peer: bytes, hello: Hello, now: float, client: str) -> None:
        refusal = self.reception.refusal(hello, client, leaving=self.work.closed)
        if refusal is not None:
            self._replies.say_to_peer(peer, refusal)
            return
        session = self.sessions.open(peer, self._token(), now, client)
        welcome = self.reception.welcome(hello, session, self.work.resident.key, near=self._attach is not None)
        session.files = FILES in welcome.features
        self._replies.say(session.name, welcome)
        if self._ready is not None:
            self._replies.say(session.name, self._ready)

    def _imported(self, outcome: Imported) -> None:
        device = outcome.device
        self._ready = Ready(
            device.device, device.device_name, device.memory_total, device.memory_free, device.precisions,
            tuple(self._options.models),
        )  # fmt: skip
        self._replies.say_all(self._ready)
        self.work.open()

    def _ring(self, session: Session, offer: Ring) -> None:
        map_ring(self._replies, session, offer, self._attach)

    def _bye(self, session: Session, _message: Bye) -> None:
        self.sessions.close(session)
        if self._options.tied and not len(self.sessions):
            self._leave(0, "the host said goodbye")

    def _drain(self, session: Session, message: Drain) -> None:
        if not self.reception.owns(session):
            self._replies.say(session.name, Reject(message.id, "forbidden", "only its own machine may drain it"))
            return
        self._drainers.append((session.name, message.id))
        self._close()

    def _close(self) -> None:
        """Take nothing new, and stop being found."""
        if not self.work.closed:
            self.work.closed = True
            self._replies.do(Retire())

    def _after(self, final: bool) -> None:  # noqa: FBT001  one question, asked in one place
        """A backend that cannot go on ends its worker once the answers are out."""
        if final:
            self._status = 1
            self._close()

    def _leave(self, status: int, reason: str) -> None:
        if self._left:
            return
        self._left = True
        self._close()
        for name, number in self._drainers:
            self._replies.say(name, Drained(number))
        drainers = {name for name, _ in self._drainers}
        for session in self.sessions.all():
            if session.name not in drainers:
                self._replies.say(session.name, Bye(reason))
        self._replies.do(Leave(status, reason))

    def _take(self, now: float) -> List[Action]:
        self._pulse.notice(now)
        if len(self.sessions):
            self._alone_since = now
        if self.work.closed and self.work.idle:
            self._leave(self._status, "drained")
        return self._replies.take()
