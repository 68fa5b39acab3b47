"""The I/O thread of a pool: feeds the lifecycle with what happens and carries its decisions out.

Everything with a socket, a process or an array lives here; whatever is decided is decided in ``lifecycle``. The
thread is the one that spawns, and it lives as long as the pool: the kernel ends tied workers with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from upx.errors import UpxError, WorkerError
from upx.workers import events, faults, lifecycle
from upx.workers.actions import (
    Deliver,
    FailTile,
    GaveUp,
    KillWorker,
    Requeued,
    SendBatch,
    SendCancel,
    SendPing,
    StartWorker,
)
from upx.workers.channel import Hub
from upx.workers.courier import Courier, Promise
from upx.workers.happenings import BatchFailed, Died, Explained, Happening, Serving, StartFailed, Tick, Widened
from upx.workers.link import Link
from upx.workers.parting import HURRIED_S, part
from upx.workers.state import DEPTH, State
from upx.workers.tiles import Answer, Request, Tile, TileResult, Tiles
from upx.workers.tracing import Tracing
from upx_protocol.errors import ProtocolError
from upx_protocol.messages import Cancel

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from upx.specs import Capabilities
    from upx.workers.plan import LoadPlan, Timeouts
    from upx.workers.seats import Seats

log = logging.getLogger("upx.workers")

TICK_S = 0.2


class Supervisor(threading.Thread):
    """``post`` and ``finish`` are for other threads, everything else belongs to this one."""

    def __init__(
        self,
        plan: LoadPlan,
        timeouts: Timeouts,
        seats: Seats,
        on_event: Callable[[events.Event], None],
    ) -> None:
        super().__init__(name=f"upx-{plan.backend}", daemon=True)
        self._plan, self._timeouts, self._seats, self._on_event = plan, timeouts, seats, on_event
        self._hub = Hub()
        self._courier = Courier()
        self._state = State(limit=max(1, len(seats)), timeouts=timeouts, varied=seats.varied)
        self.capacity = DEPTH * max(1, len(seats))
        self._links: dict[int, Link] = {}
        self._tiles = Tiles()
        self._tracing: Tracing | None = None
        self._inbox: deque[tuple[Happening, dict[int, Tile], Future[Capabilities] | None]] = deque()
        self._waiters: list[Future[Capabilities]] = []
        self._gate = threading.Lock()
        self._shut = False
        self._error: UpxError | None = None
        self._ticked = self.io_seconds = 0.0
        self._ending: tuple[bool, float] | None = None
        self._actions: dict[type, Callable[[Any], None]] = {
            StartWorker: self._start_worker, SendBatch: self._send_batch, SendCancel: self._send_cancel,
            SendPing: self._send_ping, KillWorker: self._kill, Deliver: self._deliver, FailTile: self._fail_tile,
            Requeued: self._requeued, GaveUp: self._gave_up,
        }  # fmt: skip

    # From other threads

    def post(
        self, happening: Happening, *, tiles: dict[int, Tile] | None = None, ready: Future[Capabilities] | None = None
    ) -> None:
        """Tell what a caller wants: tiles to be done, a job to be cancelled, a worker to be ready.

        WorkerError once the pool has ended.
        """
        with self._gate:
            if self._shut:
                raise WorkerError("the pool is closed", hint="make a new one")
            self._inbox.append((happening, tiles or {}, ready))
            self._hub.ring()

    def finish(self, *, kill: bool, timeout: float) -> None:
        """End everything, and wait for that."""
        with self._gate:
            self._ending = (kill, timeout)
            if not self._shut:
                self._hub.ring()
        if threading.current_thread() is not self:
            self.join(timeout + 5.0)
        self._courier.close(timeout=timeout)

    def promise(self) -> Promise[TileResult]:
        """A future for one tile: a tile ends with its job, and cannot be cancelled by itself."""
        return Promise(self._courier)

    def trace(self) -> None:
        """Record what happens to tiles that carry a trace, from here on."""
        if self._tracing is None:
            self._tracing = Tracing(self._tiles, self._name_of)

    @property
    def ties(self) -> list[int]:
        """Descriptors whose closing ends tied workers; a forked copy of the host closes its own."""
        return [link.process.tie for link in list(self._links.values()) if link.process and link.process.tie >= 0]

    # The loop

    def run(self) -> None:
        """Until ``finish``; an error of our own ends the pool and fails whatever waits."""
        self._courier.start()
        error = WorkerError("the pool was closed", hint="make a new one")
        try:
            while self._ending is None:
                self._turn()
        except Exception as failure:
            log.exception("the pool broke")
            error = WorkerError(f"the pool broke: {failure!r}", hint="this is a fault of upx; please report it")
            error.__cause__ = failure
        finally:
            self._end(error)

    def _turn(self) -> None:
        now, tick = time.monotonic(), self._ticked + TICK_S
        wake = min([tick, *(max(link.due, now + HURRIED_S) for link in self._links.values())])
        # What this thread tells itself rings no bell.
        self._hub.wait(0.0 if self._inbox else wake - now)
        while self._inbox:
            happening, tiles, ready = self._inbox.popleft()
            self._tiles.add(tiles)
            if ready is not None and not self._is_ready(ready):
                self._waiters.append(ready)
            self._step(happening)
        now = time.monotonic()
        due = now - self._ticked >= TICK_S
        for link in list(self._links.values()):
            for happening in link.poll(now, due=due):
                self._learn(link, happening)
                self._step(happening)
                self._error = None
            if link.over:
                del self._links[link.number]
                self._seats.free(link.number, now)
        if due:
            self._ticked = now
            self._step(Tick(now))
            self._look_around(now)
            for link in self._links.values():
                if link.talk is not None:
                    link.talk.shared.tidy(now)
        self.io_seconds = time.thread_time()

    def _look_around(self, now: float) -> None:
        """What a caller may have in flight; and whether a box that was given up is worth another try."""
        if self._seats.varied:
            workers = self._state.workers.values()
            self.capacity = max(DEPTH, sum(worker.depth for worker in workers))
            if workers and self._seats.overdue(now):
                self._step(Widened(now, len(self._seats)))

    def _step(self, happening: Happening) -> None:
        self._state, actions = lifecycle.step(self._state, happening)
        if self._tracing is not None:
            self._tracing.see(happening, actions)
        for action in actions:
            self._actions[type(action)](action)

    def _learn(self, link: Link, happening: Happening) -> None:
        """Keep what the lifecycle does not need: who waits is told, and the error for those who are not served."""
        if isinstance(happening, (Died, StartFailed)):
            self._seats.free(link.number, happening.now)
        if isinstance(happening, Serving):
            weights = link.capabilities.weights if link.capabilities is not None else ""
            if not self._seats.served(link.number, weights):
                link.kill(time.monotonic(), "it has other weights than the others", abandon=True)
            if link.talk is not None and (told := self._seats.explained(link.number, link.talk.pid)):
                self._step(Explained(happening.now, *told))
            if link.talk is not None and self._seats.neighbours(link.number, link.talk.ports):
                self._inbox.append((Widened(time.monotonic(), len(self._seats)), {}, None))
            self._waiters = [ready for ready in self._waiters if not self._is_ready(ready)]
        self._error = link.error

    def _is_ready(self, ready: Future[Capabilities]) -> bool:
        """Answer a waiter if a worker serves."""
        known = next((link.capabilities for link in self._links.values() if link.capabilities is not None), None)
        if known is not None:
            self._courier.deliver(lambda: ready.set_result(known))
        return known is not None

    # Decisions carried out

    def _start_worker(self, it: StartWorker) -> None:
        plan, launch = self._seats.take(it.worker)
        self._links[it.worker] = Link(it.worker, plan, launch, self._hub, timeouts=self._timeouts, report=self.report)

    def _send_batch(self, it: SendBatch) -> None:
        link = self._links.get(it.worker)
        tiles = self._tiles.of(it.batch.tiles)
        if link is None or link.talk is None or not tiles:
            return
        seeds = tuple(tile.seed for tile in tiles if tile.seed is not None)
        request = Request([tile.array for tile in tiles], tiles[0].out_dtype, seeds, tiles[0].params)
        try:
            link.talk.send_batch(it.batch, request, time.monotonic(), packed=it.packed)
        except (ProtocolError, TypeError, ValueError, OverflowError) as error:
            now, why = time.monotonic(), f"it cannot be sent: {error}"
            self._inbox.append((BatchFailed(now, it.worker, it.batch.id, it.batch.attempt, "input", why), {}, None))

    def _send_cancel(self, it: SendCancel) -> None:
        link = self._links.get(it.worker)
        if link is not None and link.talk is not None:
            link.talk.say(Cancel(it.batch, it.attempt))

    def _send_ping(self, it: SendPing) -> None:
        link = self._links.get(it.worker)
        if link is not None and link.talk is not None:
            link.talk.ping()

    def _kill(self, it: KillWorker) -> None:
        link = self._links.get(it.worker)
        if link is not None:
            link.kill(time.monotonic(), it.reason, abandon=it.abandon)

    def _deliver(self, it: Deliver) -> None:
        tile, answer = self._tiles.take(it.tile), it.payload
        if tile is None or not isinstance(answer, Answer):
            return
        try:
            result = tile.result(answer)
        except ProtocolError as error:
            self._fail(tile, faults.of_tile(self._plan, "fatal", str(error), tile=tile.name))
            return
        # Not by the courier: who waits for it is woken by this thread, one switch of threads earlier.
        tile.future.set_result(result)

    def _fail_tile(self, it: FailTile) -> None:
        tile = self._tiles.take(it.tile)
        if tile is None:
            return
        if it.cause == "lost":
            self._fail(tile, self._end_error(it.message, it.error))
        else:
            self._fail(tile, faults.of_tile(self._plan, it.cause, it.message, tile=tile.name))

    def _end_error(self, reason: str, error: Exception | None) -> Exception:
        return error or self._error or faults.lost(self._plan, reason)

    def _fail(self, tile: Tile, error: Exception) -> None:
        self._courier.deliver(lambda: tile.future.set_exception(error))

    def _requeued(self, it: Requeued) -> None:
        self.report(events.TileRequeued(self._name_of(it.worker), it.job, it.tiles, it.alone))

    def _name_of(self, worker: int) -> str:
        link = self._links.get(worker)
        return link.name if link is not None else self._plan.backend

    def _gave_up(self, it: GaveUp) -> None:
        error = self._end_error(it.reason, it.error)
        waiters, self._waiters = self._waiters, []
        for ready in waiters:
            self._courier.deliver(lambda ready=ready: ready.set_exception(error))

    def report(self, event: events.Event) -> None:
        """Hand an event to whoever shows it."""
        self._courier.deliver(lambda: self._on_event(event))

    # The end

    def _end(self, error: WorkerError) -> None:
        with self._gate:
            self._shut = True
        kill, timeout = self._ending or (True, 5.0)
        for _, tiles, ready in self._inbox:
            self._tiles.add(tiles)
            self._waiters += [ready] if ready is not None else []
        for ready in self._waiters:
            self._courier.deliver(lambda ready=ready: ready.set_exception(error))
        for tile in self._tiles.take_all():
            why = error if error.__cause__ else faults.of_tile(self._plan, "cancelled", "", tile=tile.name)
            self._fail(tile, why)
        part(self._links, self._hub, kill=kill, timeout=timeout)
        self._hub.close()
