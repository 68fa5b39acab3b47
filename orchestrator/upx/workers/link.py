"""One worker of a pool, from the search for it to its end: the process, its conversation, its deadlines, its death.

    launching ──> talking ──> killed ──> over
        ^            │  an adopted worker that is of no use: look for another
        └────────────┘

Belongs to the I/O thread; no call waits. What it learns goes to the lifecycle as happenings.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

from upx.errors import UpxError
from upx.workers import faults, ring, verdict
from upx.workers.conversation import Conversation
from upx.workers.events import WorkerDied, WorkerReady
from upx.workers.happenings import Died, Happening, Serving, StartFailed
from upx_protocol.messages import Bye, Drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.specs import Capabilities
    from upx.workers.channel import Channel, Hub
    from upx.workers.events import Event
    from upx.workers.far import FarLaunch
    from upx.workers.launch import Found, Launch
    from upx.workers.logs import LogFile
    from upx.workers.plan import LoadPlan, Timeouts
    from upx.workers.process import Process

# After the first sign of a death, the others (last messages, exit status) have so long to arrive.
WAKE_S, KILLED_S, BYE_S = 0.3, 5.0, 0.2


class Link:
    """``error`` is why it never served, where that is known; ``over`` when nothing is left of it."""

    def __init__(
        self,
        number: int,
        plan: LoadPlan,
        launch: Launch | FarLaunch,
        hub: Hub,
        *,
        timeouts: Timeouts,
        report: Callable[[Event], None],
    ) -> None:
        self.number, self._plan, self._launch, self._hub = number, plan, launch, hub
        self._timeouts, self._report = timeouts, report
        self._phase: Literal["launching", "talking", "killed", "over"] = "launching"
        self._name, self._reason, self._born = plan.backend, "", time.monotonic()
        self._noticed, self._watched = 0.0, -1
        self._found: Found | None = None
        self._channel: Channel | None = None
        self.talk: Conversation | None = None
        self.process: Process | None = None
        self.error: UpxError | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is left of it."""
        return self._phase == "over"

    @property
    def due(self) -> float:
        """When it wants to be polled, whatever comes; 0 for soon."""
        if self._phase == "launching":
            return self._launch.due
        return 0.0 if self._phase == "killed" or self._noticed > 0 else math.inf

    @property
    def log(self) -> LogFile | None:
        """Where the worker's words are, if this host started it."""
        return self.process.log if self.process is not None else None

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._found.name if self._found is not None else self._name

    @property
    def capabilities(self) -> Capabilities | None:
        """What the worker can do, while it serves."""
        talk = self.talk if self._phase == "talking" else None
        return talk.capabilities if talk is not None and talk.phase == "serving" and not talk.left else None

    def poll(self, now: float, *, due: bool) -> list[Happening]:
        """Whatever happened since the last time. ``due``: look at what wakes nobody, too."""
        if self._phase == "launching":
            return self._search(now)
        channel = self._channel
        # Connection or process may have come to an end.
        changed = due or not self.due or (channel is not None and channel.has_news) or self._hub.noticed(self._watched)
        if not changed and not (channel is not None and channel.has_mail):
            return []
        happened = self._hear(now)
        if due and self.talk is not None:
            happened += self.talk.look(now)
        if self._phase == "talking":
            happened += self._judge(now)
        # Asking the system whether a process lives costs more than most messages.
        if changed and self._phase in {"talking", "killed"}:
            happened += self._mourn(now)
        return happened

    # Finding

    def _search(self, now: float) -> list[Happening]:
        try:
            found = self._launch.poll(now)
            if found is not None:
                self._open(found, now)
        except UpxError as error:
            if self.process is None:
                self.process, self._launch.process = self._launch.process, None
            return self._fail(now, str(error), error)
        return []

    def _open(self, found: Found, now: float) -> None:
        self._found, self.process = found, found.process
        self._channel = self._hub.connect(
            found.endpoint, server_key=found.curve_public, keys=found.keys, far=self._plan.far
        )
        self._phase = "talking"
        if self.process.pidfd >= 0:
            self._watched = self.process.pidfd
            self._hub.watch(self._watched)
        self.talk = Conversation(
            self.number, found.name, self._plan, self._channel,
            timeouts=self._timeouts, report=self._report, leaving=self._is_leaving,
            share=self._plan.share and ring.possible(found.endpoint),
        )  # fmt: skip
        self.talk.greet(now)

    @property
    def _adopted(self) -> bool:
        return self._found is not None and self._found.adopted

    def _is_leaving(self) -> bool:
        return self._found is not None and self._found.leaving

    def _look_on(self) -> None:
        """The worker is of no use to us: let it live, without our session, and look for another."""
        self._close()
        self._launch.again()
        self._phase, self._noticed, self.error = "launching", 0.0, None

    # Talking

    def _hear(self, now: float, *, everything: bool = False) -> list[Happening]:
        happened: list[Happening] = []
        heard = self._channel is not None
        while heard and self._channel is not None and self.talk is not None:
            heard = False
            for received in self._channel.receive():
                heard = everything
                happened += self.talk.hear(received, now)
        served = any(isinstance(it, Serving) for it in happened)
        if served and self.talk is not None and self.talk.capabilities is not None:
            self._report(WorkerReady(self.name, self.talk.capabilities, now - self._born))
        return happened

    def _judge(self, now: float) -> list[Happening]:
        """Act on refusals, failed loads and deadlines of a worker that does not serve yet."""
        if self.talk is None or self.talk.phase == "serving":
            return []
        found = verdict.of_start(
            self.talk, self._plan, self._timeouts, now=now, age=now - self._born, adopted=self._adopted, log=self.log
        )
        if found.what == "greet":
            self.talk.greet(now)
        elif found.what == "look on" or (found.what == "kill" and not found.lasting and self._launch.patient(now)):
            self._look_on()
        elif found.what != "wait":
            drain = found.what == "drain" and not self._plan.tied
            return self._fail(now, found.reason, found.error, lasting=found.lasting, drain=drain)
        return []

    def _fail(
        self, now: float, reason: str, error: UpxError | None, *, lasting: bool = False, drain: bool = False
    ) -> list[Happening]:
        """It will never serve. Ours is ended, by ``drain`` where others may use it meanwhile."""
        self.error = error or faults.start_failed(self._plan, reason, self.log)
        self._report(WorkerDied(self.name, reason))
        ours = self.process is not None and self.process.ours
        if ours and not drain and self.process is not None:
            self.process.kill()
            self._phase, self._noticed = "killed", now
        else:
            if ours and self.talk is not None:
                self.talk.say(Drain(0))
            self._close()
        return [StartFailed(now, self.number, reason, self.error if lasting or self._plan.far else None)]

    # Ending

    def kill(self, now: float, reason: str, *, abandon: bool) -> None:
        """End the worker, or only our session with it; ``Died`` follows."""
        if self.process is None or self._phase != "talking":
            return
        self._reason, self._phase = reason, "killed"
        if abandon or self._plan.far:
            self.bye()
            self._noticed = -1.0
        else:
            self.process.kill()
            self._noticed = now

    def bye(self) -> None:
        """End our session, if there is one."""
        if self.talk is not None and self.talk.phase != "greeting":
            self.talk.say(Bye("the host is done"))

    def _mourn(self, now: float) -> list[Happening]:
        """Notice that the worker is gone, and make sure of it."""
        if self.process is None:
            return []
        if self._phase == "killed":
            if self._noticed < 0 or self.process.ended() or now - self._noticed > KILLED_S:
                return self._bury(now, self._reason or "it was ended", blame=False)
            return []
        gone, ended = self._channel is not None and self._channel.gone, self.process.ended()
        if not gone and not ended:
            return []
        self._noticed = self._noticed or now
        self._unwatch()
        if not (gone and (ended or self._plan.far)) and now - self._noticed < WAKE_S:
            return []
        happened = self._hear(now, everything=True)
        happened += self.talk.look(now) if self.talk is not None else []
        removed, goodbye = self._is_leaving(), self.talk is not None and self.talk.left
        purpose = verdict.blameless(status=self.process.status, said_goodbye=goodbye, entry_removed=removed)
        # Whether it died or the link did cannot be told from here.
        far, channel = self._plan.far, self._channel
        why = ended or (far and channel is not None and channel.why) or "it closed the connection"
        return happened + self._bury(now, why, blame=not purpose and not far, unclear=not purpose and far)

    def _bury(self, now: float, reason: str, *, blame: bool, unclear: bool = False) -> list[Happening]:
        unserved = self._phase == "talking" and (self.talk is None or self.talk.phase != "serving")
        said = verdict.epitaph(self._plan, reason, self.log, unserved=unserved, blame=blame)
        if unserved and (self._adopted or (not said.final and self._launch.patient(now))):
            self._look_on()
            return []
        if self.error is None:
            self.error = said.error
            self._report(WorkerDied(self.name, said.words))
        self._close()
        if unserved:
            # One far away was tried for as long as there was hope.
            final = said.final or self._plan.far
            return [StartFailed(now, self.number, said.words, self.error if final else None)]
        return [Died(now, self.number, said.words, blame, unclear)]

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._hub.unwatch(self._watched)
            self._watched = -1

    def _close(self) -> None:
        """Give back what belongs to the worker that was found; sweep after one that is dead."""
        # A session that we forget would keep others, and us, from loading another model for seconds.
        self.bye()
        self._unwatch()
        if self._channel is not None:
            self._channel.close(linger=BYE_S)
            self._channel = None
        if self.process is not None:
            if self.process.ended():
                self._launch.bury(self._found.info if self._found is not None else None)
            self.process.release()
            self.process = None
        if self.talk is not None:
            self.talk.shared.close()
        self._name = self.name
        self.talk = self._found = None
        self._phase, self._noticed = "over", 0.0

    # The pool's end

    def leave(self, *, kill: bool) -> None:
        """Say goodbye; a tied worker ends by that, or at once with ``kill``. Poll ``left`` until it is true."""
        if self._phase == "launching":
            self.process, self._launch.process = self._launch.process, None
            kill = True
        self.bye()
        if kill and self.process is not None and self.process.ours and self._plan.tied:
            self.process.kill()

    def left(self, share: float) -> bool:
        """Whether nothing is left of a tied worker; ``share`` of the time for that is over (0..1)."""
        tied = self.process if self._plan.tied else None
        if tied is not None and tied.ours and not tied.ended() and share < 1:
            tied.urge(share)
            return False
        self._close()
        return True
