"""Look at workers without being one of their hosts: a connection for each that is kept, and a ``Ping`` a look.

Nothing is asked of a worker that costs anybody anything, see "Liveness" in the wire's specification: an idle one still
ends in its time. A box alone has us for a guest, for the moment in which it is greeted first. Belongs to one thread at
a time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from upx.errors import UpxError
from upx.workers import channel, endpoints, faults
from upx.workers.words import tame, told_ports
from upx_protocol.messages import Bye, Hello, Ping, Pong, Reject, Welcome
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upx.config import Settings
    from upx.workers.endpoints import ClientKeys
    from upx.workers.registry import WorkerInfo

# How long an answer may take before a worker counts as silent, and for how long one stands for the next.
NEAR_S, FAR_S = 2.0, 6.0
# Who was lost is not looked for with every look.
FIRST_PAUSE_S, MOST_PAUSE_S = 2.0, 60.0
BYE_S = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """Where a worker is. ``server_key``: its own; ``box``: its machine, another one, and then with ``keys``. Z85."""

    name: str
    endpoint: str
    server_key: str = ""
    box: str = ""
    keys: ClientKeys | None = field(default=None, compare=False)

    @classmethod
    def of(cls, info: WorkerInfo) -> Target:
        """The one of a worker of this machine that has bound."""
        return cls(info.name, info.endpoint, info.curve_public)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a look saw. ``pong``: the newest, None where none came in time; ``error``: why not, None while it may come.

    Of a box: ``backend``, and the ``ports`` of all of its workers.
    """

    pong: Pong | None = None
    error: UpxError | None = None
    backend: str = ""
    ports: tuple[int, ...] = ()


class Watch:
    """One connection. ``ask`` before a look, ``hear`` while it lasts; ``over`` when it will tell nothing more."""

    def __init__(self, target: Target, hub: channel.Hub, keys: ClientKeys | None) -> None:
        self._target, self._place = target, target.box or target.name
        self._channel = hub.connect(target.endpoint, server_key=target.server_key, keys=keys, far=bool(target.box))
        self._patience = FAR_S if target.box else NEAR_S
        self._number = 0
        self._asked = self._heard = 0.0
        self._pong: Pong | None = None
        self._error: UpxError | None = None
        self._backend, self._ports = "", ()
        self._greeting = bool(target.box)
        self.over = self.waiting = False

    def ask(self, now: float) -> None:
        """Send what is to be answered next, unless an answer is still due."""
        if self.waiting or self.over:
            return
        self.waiting, self._asked = True, now
        if self._greeting:
            # A session for a moment: it tells of the box, and who is refused hears why.
            self._channel.send(Hello(1, OLDEST, NEWEST, host="upx looks"))
        else:
            self._ping()

    def _ping(self) -> None:
        self._number += 1
        self._channel.send(Ping(self._number))

    def hear(self, now: float) -> None:
        """Take in what has come."""
        # Asked first: what came before the end can still be read.
        gone = self._channel.gone
        for received in self._channel.receive():
            message = getattr(received, "message", None)
            if isinstance(message, Pong) and message.nonce == self._number:
                self._pong, self._heard, self.waiting = message, now, False
            elif isinstance(message, Welcome) and self._greeting:
                self._backend, self._ports = tame(message.backend), told_ports(message.ports)
                self._channel.send(Bye("looked"), session=message.session)
                self._greeted()
            elif isinstance(message, Reject):
                self._rejected(message)
        if gone and not self.over:
            self._end(faults.unreachable(self._place, self._channel.why))

    def _greeted(self) -> None:
        self._greeting = False
        self._ping()

    def _rejected(self, reject: Reject) -> None:
        name = self._place
        if reject.reason == "version" or (reject.reason == "session" and not self._greeting):
            self._end(faults.foreign(name, reject))
        elif reject.reason == "revoked":
            self._end(faults.unreachable(name, faults.REFUSED))
        elif self._greeting:
            # It takes no more hosts, which we do not want to be.
            self._greeted()

    def _end(self, error: UpxError) -> None:
        self._error, self.over, self.waiting = error, True, False

    def answer(self, now: float) -> Answer:
        """What is known now."""
        error = self._error
        if error is None and self.waiting and now - self._asked >= self._patience:
            error = faults.unreachable(self._place, "it does not answer")
        fresh = error is None and (not self.waiting or now - self._heard < self._patience)
        return Answer(self._pong if fresh else None, error, self._backend, self._ports)

    def close(self) -> None:
        """Close the connection."""
        # A goodbye may be on its way still.
        self._channel.close(linger=BYE_S if self._target.box and not self._greeting else 0.0)


class Watcher:
    """The connections to workers that are looked at again and again. Close it."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._hub = channel.Hub()
        self._watches: dict[Target, Watch] = {}
        self._lost: dict[Target, _Lost] = {}

    def look(self, targets: Sequence[Target], *, most: float = FAR_S) -> dict[Target, Answer]:
        """Ask all of them at once, and wait for those that may answer, ``most`` seconds in all.

        Nobody waits for who was silent, or lost, at the last look.
        """
        now = self._clock()
        for target in set(self._watches) | set(self._lost):
            if target not in targets:
                self._drop(target)
        asked = {target: watch for target in targets if (watch := self._ready(target, now)) is not None}
        awaited = [watch for target, watch in asked.items() if not watch.waiting and target not in self._lost]
        for watch in asked.values():
            watch.ask(now)
        self._await(list(asked.values()), awaited, now + most)
        return {target: self._answer(target) for target in targets}

    def _ready(self, target: Target, now: float) -> Watch | None:
        """The connection to a worker, made where there is none; None where none can be, or not so soon again."""
        lost = self._lost.get(target)
        if target not in self._watches and (lost is None or now >= lost.until):
            try:
                self._watches[target] = Watch(target, self._hub, self._keys(target))
            except UpxError as error:
                self._lost[target] = _Lost.again(lost, error, now)
        return self._watches.get(target)

    def _keys(self, target: Target) -> ClientKeys | None:
        if target.keys is None and target.endpoint.startswith("tcp:"):
            return endpoints.client_keys(self._settings, target.server_key, channel.new_key_pair)
        return target.keys

    def _await(self, asked: Sequence[Watch], awaited: Sequence[Watch], until: float) -> None:
        while True:
            now = self._clock()
            for watch in asked:
                watch.hear(now)
            if now >= until or not any(watch.waiting and watch.answer(now).error is None for watch in awaited):
                return
            self._hub.wait(min(0.1, until - now))

    def _answer(self, target: Target) -> Answer:
        now, watch = self._clock(), self._watches.get(target)
        if watch is None:
            return Answer(error=self._lost[target].error)
        answer = watch.answer(now)
        if watch.over and answer.error is not None:
            watch.close()
            del self._watches[target]
            self._lost[target] = _Lost.again(self._lost.get(target), answer.error, now)
        elif answer.pong is not None:
            self._lost.pop(target, None)
        elif answer.error is None and target in self._lost:
            # Tried again, and nothing new is known yet.
            return replace(answer, error=self._lost[target].error)
        return answer

    def _drop(self, target: Target) -> None:
        self._lost.pop(target, None)
        watch = self._watches.pop(target, None)
        if watch is not None:
            watch.close()

    def close(self) -> None:
        """Close every connection."""
        for target in list(self._watches):
            self._drop(target)
        self._hub.close()


@dataclass(frozen=True, slots=True)
class _Lost:
    """Why a worker cannot be looked at, and until when nobody tries; each time for longer."""

    error: UpxError
    until: float
    pause: float

    @classmethod
    def again(cls, before: _Lost | None, error: UpxError, now: float) -> _Lost:
        pause = FIRST_PAUSE_S if before is None else min(2 * before.pause, MOST_PAUSE_S)
        return cls(error, now + pause, pause)
