"""What is said between this host and one worker: greeting, loading, tiles; each answer becomes happenings.

Knows the protocol and nothing of processes. Nothing that a worker says is trusted: what does not decode, has another
session, or fits nothing that was asked is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from upx.workers import greeting, happenings
from upx.workers.events import Event, LogLine
from upx.workers.parcels import Parcels
from upx.workers.sending import Sending
from upx.workers.sharing import Sharing
from upx.workers.tiles import Answer
from upx_protocol import messages as wire
from upx_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from upx.specs import Capabilities
    from upx.workers.channel import Channel
    from upx.workers.happenings import Happening
    from upx.workers.plan import LoadPlan, Timeouts
    from upx.workers.state import Batch
    from upx.workers.tiles import Request
    from upx_protocol.arrays import Bytes
    from upx_protocol.codec import Received

CLASSES = frozenset({"oom", "input", "fatal", "transient"})
WRONG_LOAD = "load"
# Sessions that may be lost without a tile between them.
MOST_FORGOTTEN = 3


class Conversation:
    """One channel's talk. ``refused``, ``failure`` and ``left`` say how it came to an end, where it did.

    ``share``: tiles lie in memory that both map, if the worker can.
    """

    def __init__(
        self,
        worker: int,
        name: str,
        plan: LoadPlan,
        channel: Channel,
        *,
        timeouts: Timeouts,
        report: Callable[[Event], None],
        leaving: Callable[[], bool],
        share: bool = False,
    ) -> None:
        self.worker, self.name, self._plan, self._channel = worker, name, plan, channel
        self._timeouts, self._report, self._is_leaving = timeouts, report, leaving
        self.phase: Literal["greeting", "loading", "serving", "refused"] = "greeting"
        self.deadline = 0.0
        self.refused: wire.Reject | None = None
        self.failure: wire.Failed | None = None
        self.left, self.mangled = False, 0
        # Of all workers of its box, where it is one's.
        self.ports, self.pid = (), 0
        self.capabilities: Capabilities | None = None
        self._session = self._load_id = ""
        self._number, self._load_number = 0, -1
        self._credit = (1, 0)
        self._forgotten, self._pinged = 0, 0.0
        self.shared, self._parcels = Sharing(wanted=share), Parcels(wanted=plan.far)
        self._sending = Sending(
            name, plan.supply, say=self.say, number=self._next, load=self._load, advanced=self._advanced, report=report
        )
        self._handlers: dict[type[Any], Callable[[Any, float], list[Happening]]] = {
            wire.Ready: self._ready,
            wire.Progress: self._progress,
            wire.Loaded: self._loaded,
            wire.Failed: self._failed,
            wire.Started: lambda it, now: [happenings.BatchStarted(now, worker, it.id, it.attempt)],
            wire.Cancelled: self._cancelled,
            wire.Credit: lambda it, now: [happenings.Credited(now, worker, it.tiles, it.bytes)],
            wire.Pong: self._pong,
            wire.Ping: self._ping,
            wire.Mapped: self._mapped,
            wire.Want: self._sending.want,
            wire.Taken: self._sending.taken,
            wire.Log: self._log,
            wire.Bye: self._bye,
            wire.Drained: self._bye,
        }

    # What is said

    def greet(self, now: float) -> None:
        """Ask for a session."""
        self.phase, self._session, self._load_number = "greeting", "", -1
        self.deadline = now + (self._timeouts.far_hello if self._plan.place else self._timeouts.hello)
        self.shared.close()
        self._channel.pipe = None
        self._sending.reset()
        features = (*self.shared.features, *self._sending.features, *self._parcels.features)
        self._channel.send(greeting.hello(self._plan, self._next(), features))

    def send_batch(self, batch: Batch, request: Request, now: float, *, packed: bool = False) -> None:
        """Send a batch; ProtocolError, TypeError or OverflowError where it cannot be put on the wire."""
        key, scale = (batch.id, batch.attempt), self.capabilities.scale if self.capabilities is not None else 0
        loan = self.shared.lend(key, request.arrays, scale=scale, out_dtype=request.out_dtype, now=now)
        arrays, codec = ((), "raw") if loan else self._parcels.wrap(request.arrays, wanted=packed)
        message = wire.Upscale(
            batch.id, batch.attempt, self._load_id, loan.bufs if loan else (), out_dtype=request.out_dtype,
            seeds=request.seeds, params=request.params, outs=loan.outs if loan else (), codec=codec,
        )  # fmt: skip
        try:
            self._channel.send(message, session=self._session, arrays=arrays, in_ring=bool(loan))
        except BaseException:
            self.shared.ended(*key)
            raise

    def say(self, message: wire.Message, arrays: Sequence[NDArray[Any]] = ()) -> bool:
        """Say anything else within the session; False where the worker takes nothing at the moment."""
        return self._channel.send(message, session=self._session, arrays=arrays)

    def ping(self) -> None:
        """Ask whether it is there."""
        self.say(wire.Ping(self._next()))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _load(self) -> None:
        self._load_number = self._next()
        self._sending.expect(self._load_number)
        self.say(greeting.load(self._plan, self._load_number, self._timeouts))

    # What is heard

    def hear(self, received: Received | ProtocolError, now: float) -> list[Happening]:
        """What a message means."""
        if isinstance(received, ProtocolError):
            self._note_mangled(str(received))
            return []
        message = received.message
        if isinstance(message, wire.Welcome):
            self._welcome(message, now)
            return []
        if isinstance(message, wire.Reject):
            return self._reject(message, received.session, now)
        if not self._session or received.session != self._session:
            return []
        if isinstance(message, wire.TileDone):
            return self._tile_done(message, received.buffers, now)
        handler = self._handlers.get(type(message))
        return handler(message, now) if handler is not None else []

    def look(self, now: float) -> list[Happening]:
        """What the worker has noted in memory without a message, and what is due while it loads."""
        if self.phase == "loading":
            self._wait(now)
        return [happenings.BatchStarted(now, self.worker, *batch) for batch in self.shared.begun()]

    def _wait(self, now: float) -> None:
        """A worker forgets a host that says nothing, and a load may take minutes."""
        if now - self._pinged >= (self._timeouts.far_ping if self._plan.place else self._timeouts.ping):
            self._pinged = now
            self.ping()
        self._sending.turn(now)
        self.failure = self.failure or self._sending.failure

    def _note_mangled(self, why: str) -> None:
        """Report the first of them, and count: a peer that sends thousands must not fill anybody's screen."""
        self.mangled += 1
        if self.mangled == 1:
            self._report(LogLine(self.name, "WARNING", f"sent something that is no message: {why}"))

    def _welcome(self, message: wire.Welcome, now: float) -> None:
        if self.phase != "greeting" or message.id != self._number:
            return
        if self._plan.place and message.backend != self._plan.backend:
            self.refused = wire.Reject(message.id, "identity", f"it serves {message.backend}, not {self._plan.backend}")
            return
        self._session, self.ports, self.pid = message.session, message.ports, message.pid
        self._credit = (message.credit_tiles, message.credit_bytes)
        self._parcels.begin(message.features)
        offer = self.shared.begin(message.features, self._next())
        if offer is not None:
            self.say(offer)
        self.phase, self.deadline = "loading", now + self._timeouts.load

    def _reject(self, message: wire.Reject, session: str, now: float) -> list[Happening]:
        if message.reason == "session":
            if not self._session or session != self._session:
                return []
            return self._again(now, message)
        if message.reason == "revoked":
            self.phase, self.refused = "refused", message
            return [happenings.SessionLost(now, self.worker)]
        if message.reason == "credit":
            self.shared.refused(message.id)
            return [happenings.BatchRefused(now, self.worker, message.id)] if self.phase == "serving" else []
        awaited = self._number if self.phase == "greeting" else self._load_number
        if self.phase != "serving" and message.id == awaited:
            self.refused = message
        return []

    def _again(self, now: float, why: wire.Reject | None = None) -> list[Happening]:
        """Our session is gone. Greet again, but not for ever: a worker that only ever forgets is of no use."""
        served = self.phase == "serving"
        self._forgotten += 1
        if why is not None and (not served or self._forgotten > MOST_FORGOTTEN):
            self.phase, self.refused = "refused", why
        else:
            self.greet(now)
        return [happenings.SessionLost(now, self.worker)] if served else []

    def _ready(self, _message: wire.Ready, _now: float) -> list[Happening]:
        if self.phase == "loading" and self._load_number < 0:
            self._load()
        return []

    def _progress(self, message: wire.Progress, now: float) -> list[Happening]:
        if self.phase == "loading":
            self._advanced(now)
            self._sending.tell(message.stage, message.done, message.total, now, at_once=not self._plan.far)
        return []

    def _advanced(self, now: float) -> None:
        """The load has got on: its deadline counts anew."""
        self.deadline = now + self._timeouts.load
        if self._plan.heard is not None:
            self._plan.heard(now)

    def _loaded(self, message: wire.Loaded, now: float) -> list[Happening]:
        if self.phase != "loading" or message.id != self._load_number or not message.load_id or message.scale < 1:
            return []
        if self._plan.place and self._plan.scale not in {0, message.scale}:
            # A box is not believed: so many times the memory, or another model's picture.
            said = f"it loaded a model that enlarges {message.scale} times, not {self._plan.scale}"
            self.refused = wire.Reject(message.id, "identity", said)
            return []
        self.phase, self._load_id = "serving", message.load_id
        self.capabilities = greeting.capabilities(message)
        return [happenings.Serving(now, self.worker, *self._credit, far=bool(self._plan.place))]

    def _failed(self, message: wire.Failed, now: float) -> list[Happening]:
        if self.phase == "loading":
            self._sending.failed(message, now)
            if message.id in {0, self._load_number}:
                self.failure = message
            return []
        if message.failure == "input" and message.message == WRONG_LOAD:
            # The model was replaced while nobody of ours was there.
            return self._again(now)
        self.shared.failed(message)
        cause = cast("Any", message.failure if message.failure in CLASSES else "fatal")
        failed = happenings.BatchFailed(now, self.worker, message.id, message.attempt, cause, message.message)
        leaves = cause == "transient" and self._is_leaving()
        return [happenings.Leaving(now, self.worker), failed] if leaves else [failed]

    def _tile_done(self, message: wire.TileDone, buffers: tuple[Bytes, ...], now: float) -> list[Happening]:
        if self.capabilities is None:
            return []
        found = self.shared.answered(message, buffers)
        if found is None:
            self._note_mangled("a result that does not lie where it should")
            return []
        self._forgotten = 0
        (part, credit), buffer = found, message.bufs[0]
        answer = Answer(buffer, part, message.seconds, self.name, self.capabilities.scale)
        told = (message.seconds, buffer.nbytes, self._parcels.rate(buffer, part))
        return [
            happenings.TileDone(now, self.worker, message.id, message.attempt, message.index, answer, credit, *told)
        ]

    def _mapped(self, message: wire.Mapped, _now: float) -> list[Happening]:
        self._channel.pipe = self.shared.confirm(message) or self._channel.pipe
        return []

    def _cancelled(self, message: wire.Cancelled, now: float) -> list[Happening]:
        self.shared.ended(message.id, message.attempt)
        return [happenings.BatchCancelled(now, self.worker, message.id, message.attempt)]

    def _pong(self, message: wire.Pong, now: float) -> list[Happening]:
        pong = happenings.Ponged(now, self.worker, message.hosts, message.tiles_done)
        return [pong] if self.phase == "serving" else []

    def _ping(self, message: wire.Ping, _now: float) -> list[Happening]:
        self.say(wire.Pong(message.nonce))
        return []

    def _log(self, message: wire.Log, _now: float) -> list[Happening]:
        if not self._plan.far:  # A box sends none; one that does would fill a queue without an end.
            self._report(LogLine(self.name, message.level, message.message))
        return []

    def _bye(self, _message: wire.Message, now: float) -> list[Happening]:
        self.left = True
        return [happenings.Leaving(now, self.worker)] if self.phase == "serving" else []
