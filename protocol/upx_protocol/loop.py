"""The socket of a worker: feeds the service with what comes, and carries its actions out.

One thread at a time does that: ``lead`` says which of the two.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Deque, List, Optional

import zmq

from upx_protocol import entry as registry
from upx_protocol import heap, ring
from upx_protocol.actions import Action, Keep, Kept, Leave, Logged, Outcome, Retire, Run, Send
from upx_protocol.codec import decode
from upx_protocol.crash import crash
from upx_protocol.curve import CurveKeys
from upx_protocol.door import Door
from upx_protocol.errors import ProtocolError
from upx_protocol.inbox import BURST, Inbox
from upx_protocol.lead import Lead
from upx_protocol.limits import LINGER_MS, limit
from upx_protocol.outbox import Outbox
from upx_protocol.pipes import Pipes
from upx_protocol.service import Service
from upx_protocol.wake import ORPHANED, TERM

if TYPE_CHECKING:
    from upx_protocol.actions import Task
    from upx_protocol.clerk import Clerk
    from upx_protocol.options import WorkerOptions
    from upx_protocol.wake import Wake

log = logging.getLogger("upx.worker")

POLL_MS, BUSY_POLL_MS, TEND_S = 250, 10, 0.05
ENTRY_CHECK_S, ENTRY_WRITE_S = 2.0, 0.5
#: A loop that was kept from running for longer than this was not listening, and silence in that time is nobody's.
GAP_S = 1.0
TERM_S = 3.0
#: How long a leaving worker answers Hellos that were already under way.
FAREWELL_S = 0.1
#: With so many outcomes still to be learnt a log record is left out.
MAX_BACKLOG = 256


class Loop(threading.Thread):
    """One socket, held by this thread or by the main one, which alone calls ``next_task``; ``report`` is for all."""

    def __init__(self, options: WorkerOptions, wake: Wake) -> None:
        super().__init__(name="io", daemon=True)
        self.status = 0
        # Who keeps what hosts send, where they may; set before the start.
        self.clerk: Optional[Clerk] = None
        self._options, self._wake = options, wake
        self._lead = Lead(wake.ring)
        self._tasks: Deque[Task] = deque()
        self._bell = wake.reader.fileno()
        self._poller = zmq.Poller()
        self._pipes = Pipes(self._poller)
        near = options.endpoint.startswith("ipc:") and ring.supported()
        self._service = Service(
            options, now=time.monotonic(), pid=os.getpid(), memory=registry.resident_bytes,
            attach=self._pipes.attach if near else None,
        )  # fmt: skip
        self._outcomes: Deque[Outcome] = deque()
        self._leaving: Optional[Leave] = None
        self._compute_ended = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._outbox = Outbox(
            self._router, sent=self._service.sent, gone=self._gone, lives=self._service.lives, weigh=options.serves,
            pipe=self._pipes.send,
        )  # fmt: skip
        self._door: Optional[Door] = None

    def bind(self) -> None:
        """Bind the socket and write the registry entry; OSError or ZMQError when that cannot be."""
        options, router = self._options, self._router
        public = self._guard() if options.endpoint.startswith("tcp:") else ""
        limit(router, options)
        if options.listen_fd >= 0:
            router.setsockopt(zmq.USE_FD, options.listen_fd)
        router.bind(options.endpoint)
        self._inbox = Inbox(router, self._door, self._pipes)
        self._endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._entry = registry.Entry(options, endpoint=self._endpoint, curve_public=public)
        self._entry.write(self._service.status)
        self._heard = self._checked = self._written = time.monotonic()
        self._shown = (0, "")
        self._poller.register(router, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)
        if self._door is not None:
            self._door.attend(self._poller)

    def _guard(self) -> str:
        """Put a door before the socket; the public key that is on it."""
        if not self._options.curve_keys:
            raise ValueError("a worker listens on tcp with CURVE keys or not at all")
        keys = CurveKeys.read(self._options.curve_keys)
        self._door = Door(self._context, keys, self._options.allowed)
        self._door.guard(self._router)
        heap.keep()
        if self._options.serves:
            self._service.reception.owner = self._door.allowed.own
        return keys.server_public

    def report(self, outcome: Outcome) -> None:
        """Take an outcome of the main thread, or another's word; never waits for another thread."""
        if isinstance(outcome, Logged) and len(self._outcomes) >= MAX_BACKLOG:
            return
        self._outcomes.append(outcome)
        if isinstance(outcome, (Logged, Kept)):
            self._wake.ring()
            return
        if not self._lead.seize():
            self._wake.ring()
            return
        try:
            # After the farewell the socket is closed, and nobody is left to answer.
            if self._leaving is None:
                self._learn()
        except BaseException:  # noqa: BLE001  not the backend's, which reports
            crash()
        self._lead.drop()

    def next_task(self) -> Optional[Task]:
        """Listen until there is something to compute; None when the worker is to leave. For the main thread alone."""
        self._lead.take()
        try:
            if self._leaving is None and self._tasks:
                # Between short tasks nobody else listens.
                self._turn(wait=False)
            while self._leaving is None and not self._tasks:
                self._turn()
        except BaseException:  # noqa: BLE001  see run
            crash()
        if self._leaving is not None:
            self._lead.part()
            return None
        self._lead.leave()
        return self._tasks.popleft()

    def compute_ended(self) -> None:
        """The main thread will compute no more."""
        self._compute_ended.set()

    def run(self) -> None:
        """Serve; a loop that dies takes the process with it, since nobody could talk to it any more."""
        try:
            while self._leaving is None:
                self._lead.stand_by()
                while self._lead.away and self._leaving is None:
                    self._turn()
                if self._leaving is None:
                    self._lead.drop()
            self._farewell()
        except BaseException:  # noqa: BLE001  the process ends here and says why
            crash()

    def _turn(self, *, wait: bool = True) -> None:
        """Hear what has come, or comes within a moment, and do what follows."""
        patience = BUSY_POLL_MS if self._outbox else POLL_MS if self._door is None else self._door.patience_ms
        ready = [what for what, _ in self._poller.poll(patience if wait and not self._inbox.came else 0)]
        if self._bell in ready:
            self._woken()
        self._watch_door()
        if self._router in ready or self._inbox:
            self._hear()
        now = time.monotonic()
        if self._outbox or now - self._heard > TEND_S or self._changed():
            self._tend(now)

    def _tend(self, now: float) -> None:
        """Whatever is due: silence, what could not be sent, the registry entry."""
        unheard = now - self._heard if now - self._heard > GAP_S else 0.0
        self._heard = now
        self._act(self._service.tick(now, unheard=unheard))
        self._outbox.flush()
        self._pipes.keep(self._service.lives)
        if now - self._checked > ENTRY_CHECK_S:
            self._checked = now
            if not self._entry.present():
                log.warning("the registry entry is gone: leaving")
                self._act(self._service.drain(now))
        if now - self._written > ENTRY_WRITE_S or self._changed():
            status = self._service.status
            self._written, self._shown = now, (status.hosts, status.model)
            self._entry.write(status)

    def _changed(self) -> bool:
        """Who looks at the entry between two commands must not take the first for one that is still there."""
        service = self._service
        return (len(service.sessions), service.work.resident.model) != self._shown

    def _watch_door(self) -> None:
        if self._door is None:
            return
        now = time.monotonic()
        for key in self._door.turn(now):
            self._act(self._service.revoked(key, now))
            self._door.show_out(key, now)

    def _woken(self) -> None:
        reasons = self._wake.reasons()
        if ORPHANED in reasons:
            self._vanish()
        if TERM in reasons:
            self._act(self._service.drain(time.monotonic(), within=TERM_S))
        self._learn()

    def _learn(self) -> None:
        while self._outcomes:
            self._act(self._service.outcome(self._outcomes.popleft(), time.monotonic()))

    def _hear(self) -> None:
        for _ in range(BURST):
            taken = self._inbox.take()
            if taken is None:
                return
            peer, client, parts = taken
            now = time.monotonic()
            if client is None:
                continue
            try:
                received = decode(parts)
            except ProtocolError as error:
                actions = self._service.malformed(peer, str(error), now)
            else:
                actions = self._service.receive(peer, received, now, client)
            self._act(actions)
            if self._door is not None and self._door.heed(client, actions, now):
                for session in self._service.sessions.of_client(client):
                    self._gone(session.peer)
            if self._tasks:
                return

    def _act(self, actions: List[Action]) -> None:
        for action in actions:
            if isinstance(action, Run):
                self._tasks.append(action.task)
            elif isinstance(action, Send):
                self._outbox.send(action)
            elif isinstance(action, Retire):
                self._entry.remove()
            elif isinstance(action, Keep):
                if self.clerk is not None:
                    self.clerk.put(action.task)
            else:
                self._leaving = action

    def _gone(self, peer: bytes) -> None:
        self._act(self._service.gone(peer, time.monotonic()))

    # Leaving

    def _farewell(self) -> None:
        """Say what is left to say, answer late Hellos, close, and let the main thread end the process."""
        leaving = self._leaving
        self.status = leaving.status if leaving is not None else 0
        until = time.monotonic() + FAREWELL_S
        while time.monotonic() < until or (self._outbox and time.monotonic() < until + LINGER_MS / 1000):
            self._poller.poll(20)
            self._hear()
            self._outbox.flush()
        self._poller = zmq.Poller()
        self._pipes.close()
        self._remove_socket()
        if self._door is not None:
            self._door.close()
        self._router.close()
        self._context.term()
        self._entry.close()
        self._lead.drop()
        if not self._compute_ended.wait(1.0):
            # The main thread sits in a call that may never return.
            os._exit(self.status)

    def _vanish(self) -> None:
        """The host of a tied worker is dead: nobody is left to be polite to."""
        self._entry.remove()
        self._remove_socket()
        os._exit(0)

    def _remove_socket(self) -> None:
        """ZeroMQ leaves the file of an ipc socket behind."""
        if self._endpoint.startswith("ipc://"):
            Path(self._endpoint[len("ipc://") :]).unlink(missing_ok=True)
