"""What is said between this host and one worker: greeting, loading, tiles; each answer becomes happenings.

Knows the protocol and nothing of processes. Nothing that a worker says is trusted: what does not decode, has another
session, or fits nothing that was asked is passed over.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, cast

from upx.specs import Capabilities, SizeRequirements
from upx.workers.events import Event, LoadProgress, LogLine
from upx.workers.happenings import (
    BatchCancelled,
    BatchFailed,
    BatchRefused,
    BatchStarted,
    Credited,
    Happening,
    Leaving,
    Ponged,
    Serving,
    SessionLost,
    TileDone,
)
from upx.workers.sharing import Sharing
from upx.workers.tiles import Answer
from upx_protocol import messages as wire
from upx_protocol.errors import ProtocolError
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.workers.channel import Channel
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
        self.phase: Literal["greeting", "loading", "serving"] = "greeting"
        self.deadline = 0.0
        self.refused: wire.Reject | None = None
        self.failure: wire.Failed | None = None
        self.left = False
        self.mangled = 0
        # Of all workers of its box, where it is one's.
        self.ports, self.pid = (), 0
        self.capabilities: Capabilities | None = None
        self._session = ""
        self._load_id = ""
        self._number = 0
        self._load_number = -1
        self._credit = (1, 0)
        self._forgotten = 0
        self.shared = Sharing(wanted=share)
        self._handlers: dict[type[Any], Callable[[Any, float], list[Happening]]] = {
            wire.Ready: self._ready,
            wire.Progress: self._progress,
            wire.Loaded: self._loaded,
            wire.Failed: self._failed,
            wire.Started: self._started,
            wire.Cancelled: self._cancelled,
            wire.Credit: self._credited,
            wire.Pong: self._pong,
            wire.Ping: self._ping,
            wire.Mapped: self._mapped,
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
        hello = wire.Hello(
            self._next(), OLDEST, NEWEST, self.shared.features, f"upx {os.getpid()}", self._plan.env, self._plan.build
        )
        self._channel.send(hello)

    def send_batch(self, batch: Batch, request: Request, now: float) -> None:
        """Send a batch; ProtocolError, TypeError or OverflowError where it cannot be put on the wire."""
        key, scale = (batch.id, batch.attempt), self.capabilities.scale if self.capabilities is not None else 0
        loan = self.shared.lend(key, request.arrays, scale=scale, out_dtype=request.out_dtype, now=now)
        message = wire.Upscale(
            batch.id, batch.attempt, self._load_id, loan.bufs if loan else (), out_dtype=request.out_dtype,
            seeds=request.seeds, params=request.params, outs=loan.outs if loan else (),
        )  # fmt: skip
        try:
            self._channel.send(message, session=self._session, arrays=() if loan else request.arrays)
        except BaseException:
            self.shared.ended(*key)
            raise

    def say(self, message: wire.Message) -> None:
        """Say anything else within the session."""
        self._channel.send(message, session=self._session)

    def ping(self) -> None:
        """Ask whether it is there."""
        self.say(wire.Ping(self._next()))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _load(self) -> None:
        plan = self._plan
        self._load_number = self._next()
        self.say(
            wire.Load(
                self._load_number, plan.load_key, plan.model, dict(plan.files), plan.device, plan.precision,
                plan.threads, dict(plan.params), int(self._timeouts.load * 1000), plan.weights,
            )
        )  # fmt: skip

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
        """What the worker has noted in memory without a message."""
        return [BatchStarted(now, self.worker, *batch) for batch in self.shared.begun()]

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
            self.phase, self.refused = "loading", message
            return [SessionLost(now, self.worker)]
        if message.reason == "credit":
            self.shared.refused(message.id)
            return [BatchRefused(now, self.worker, message.id)] if self.phase == "serving" else []
        awaited = self._number if self.phase == "greeting" else self._load_number
        if self.phase != "serving" and message.id == awaited:
            self.refused = message
        return []

    def _again(self, now: float, why: wire.Reject | None = None) -> list[Happening]:
        """Our session is gone. Greet again, but not for ever: a worker that only ever forgets is of no use."""
        served = self.phase == "serving"
        self._forgotten += 1
        if why is not None and (not served or self._forgotten > MOST_FORGOTTEN):
            self.phase, self.refused = "loading", why
        else:
            self.greet(now)
        return [SessionLost(now, self.worker)] if served else []

    def _ready(self, _message: wire.Ready, _now: float) -> list[Happening]:
        if self.phase == "loading" and self._load_number < 0:
            self._load()
        return []

    def _progress(self, message: wire.Progress, now: float) -> list[Happening]:
        if self.phase == "loading":
            self.deadline = now + self._timeouts.load
            self._report(LoadProgress(self.name, message.stage, message.done, message.total))
        return []

    def _loaded(self, message: wire.Loaded, now: float) -> list[Happening]:
        if self.phase != "loading" or message.id != self._load_number or not message.load_id or message.scale < 1:
            return []
        if self._plan.place and self._plan.scale not in {0, message.scale}:
            # A box is not believed: so many times the memory, or another model's picture.
            said = f"it loaded a model that enlarges {message.scale} times, not {self._plan.scale}"
            self.refused = wire.Reject(message.id, "identity", said)
            return []
        self.phase, self._load_id = "serving", message.load_id
        size = SizeRequirements(message.minimum, message.multiple_of, message.square, message.fixed)
        self.capabilities = Capabilities(
            message.scale, size, message.device, message.device_name, message.precision, message.dtypes, message.weights
        )
        return [Serving(now, self.worker, *self._credit, far=bool(self._plan.place))]

    def _failed(self, message: wire.Failed, now: float) -> list[Happening]:
        if self.phase == "loading":
            if message.id in {0, self._load_number}:
                self.failure = message
            return []
        if message.failure == "input" and message.message == WRONG_LOAD:
            # The model was replaced while nobody of ours was there.
            return self._again(now)
        self.shared.failed(message)
        cause = cast("Any", message.failure if message.failure in CLASSES else "fatal")
        failed = BatchFailed(now, self.worker, message.id, message.attempt, cause, message.message)
        leaves = cause == "transient" and self._is_leaving()
        return [Leaving(now, self.worker), failed] if leaves else [failed]

    def _tile_done(self, message: wire.TileDone, buffers: tuple[Bytes, ...], now: float) -> list[Happening]:
        if self.capabilities is None:
            return []
        found = self.shared.answered(message, buffers)
        if found is None:
            self._note_mangled("a result that does not lie where it should")
            return []
        self._forgotten = 0
        part, credit = found
        answer = Answer(message.bufs[0], part, message.seconds, self.name, self.capabilities.scale)
        return [TileDone(now, self.worker, message.id, message.attempt, message.index, answer, credit)]

    def _mapped(self, message: wire.Mapped, _now: float) -> list[Happening]:
        self.shared.confirm(message)
        return []

    def _started(self, message: wire.Started, now: float) -> list[Happening]:
        return [BatchStarted(now, self.worker, message.id, message.attempt)]

    def _cancelled(self, message: wire.Cancelled, now: float) -> list[Happening]:
        self.shared.ended(message.id, message.attempt)
        return [BatchCancelled(now, self.worker, message.id, message.attempt)]

    def _credited(self, message: wire.Credit, now: float) -> list[Happening]:
        return [Credited(now, self.worker, message.tiles, message.bytes)]

    def _pong(self, message: wire.Pong, now: float) -> list[Happening]:
        return [Ponged(now, self.worker, message.hosts, message.tiles_done)]

    def _ping(self, message: wire.Ping, _now: float) -> list[Happening]:
        self.say(wire.Pong(message.nonce))
        return []

    def _log(self, message: wire.Log, _now: float) -> list[Happening]:
        self._report(LogLine(self.name, message.level, message.message))
        return []

    def _bye(self, _message: wire.Message, now: float) -> list[Happening]:
        self.left = True
        return [Leaving(now, self.worker)] if self.phase == "serving" else []
