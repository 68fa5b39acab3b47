"""The I/O thread of a worker: owns the socket, feeds the service, carries its actions out."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Deque, Dict, List, Optional

import zmq

from upx_protocol import entry as registry
from upx_protocol import ring
from upx_protocol.actions import Action, Leave, Logged, Outcome, Retire, Run, Send
from upx_protocol.codec import MAX_PARTS, Bytes, decode, encode
from upx_protocol.curve import CurveKeys
from upx_protocol.door import Door
from upx_protocol.errors import ProtocolError
from upx_protocol.service import Service
from upx_protocol.wake import ORPHANED, TERM

if TYPE_CHECKING:
    import queue

    from upx_protocol.actions import Task
    from upx_protocol.options import WorkerOptions
    from upx_protocol.wake import Wake

log = logging.getLogger("upx.worker")

POLL_MS, BUSY_POLL_MS = 250, 10
ENTRY_CHECK_S, ENTRY_WRITE_S = 2.0, 0.5
#: A loop that was kept from running for longer than this was not listening, and silence in that time is nobody's.
GAP_S = 1.0
TERM_S = 3.0
#: How long a leaving worker answers Hellos that were already under way, and waits for what it sent to go out.
FAREWELL_S, LINGER_MS = 0.1, 1_000
#: Messages taken in one go before the loop looks at anything else.
BURST = 64
MAX_LOG_BACKLOG = 256
MAX_BACKLOG = 1_024
#: A host that reads nothing for so long, while something waits for it, has left.
STUCK_S = 30.0
CRASHED = 70


class Loop(threading.Thread):
    """One thread, one socket. ``report`` is the only method that other threads call while it runs."""

    def __init__(self, options: WorkerOptions, tasks: queue.SimpleQueue[Optional[Task]], wake: Wake) -> None:
        super().__init__(name="io", daemon=True)
        self.status = 0
        self._options, self._tasks, self._wake = options, tasks, wake
        self._bell = wake.reader.fileno()
        near = options.endpoint.startswith("ipc:") and ring.supported()
        self._service = Service(
            options,
            now=time.monotonic(),
            pid=os.getpid(),
            memory=registry.resident_bytes,
            attach=ring.attach if near else None,
        )
        self._outcomes: Deque[Outcome] = deque()
        self._logged = 0
        self._backlog: Deque[Send] = deque()
        self._stuck: Dict[bytes, float] = {}
        self._leaving: Optional[Leave] = None
        self._compute_ended = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._door: Optional[Door] = None
        self._poller = zmq.Poller()

    def bind(self) -> None:
        """Bind the socket and write the registry entry; OSError or ZMQError when that cannot be."""
        options, router = self._options, self._router
        public = self._guard() if options.endpoint.startswith("tcp:") else ""
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.LINGER, LINGER_MS)
        # Credit comes back when a result is handed to the connection: this bounds what a slow reader may hold.
        router.setsockopt(zmq.SNDHWM, 16 if options.serves else 4 * options.credit_tiles + 16)
        router.setsockopt(zmq.RCVHWM, 4 * options.credit_tiles + 16)
        router.setsockopt(zmq.MAXMSGSIZE, options.max_bytes)
        if options.listen_fd >= 0:
            router.setsockopt(zmq.USE_FD, options.listen_fd)
        router.bind(options.endpoint)
        self._endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._entry = registry.Entry(options, endpoint=self._endpoint, curve_public=public)
        self._entry.write(self._service.status)

    def _guard(self) -> str:
        """Put a door before the socket; the public key that is on it."""
        if not self._options.curve_keys:
            raise ValueError("a worker listens on tcp with CURVE keys or not at all")
        keys = CurveKeys.read(self._options.curve_keys)
        self._door = Door(self._context, keys, self._options.allowed)
        self._door.guard(self._router)
        if self._options.serves:
            self._service.reception.owner = self._door.allowed.own
        return keys.server_public

    def report(self, outcome: Outcome) -> None:
        """Take an outcome of the compute thread, or a log record of any thread; never waits."""
        if isinstance(outcome, Logged):
            if self._logged >= MAX_LOG_BACKLOG:
                return
            self._logged += 1
        self._outcomes.append(outcome)
        self._wake.ring()

    def compute_ended(self) -> None:
        """The main thread will compute no more."""
        self._compute_ended.set()

    def run(self) -> None:
        """Serve; a loop that dies takes the process with it, since nobody could talk to it any more."""
        try:
            self._serve()
            self._farewell()
        except BaseException:  # noqa: BLE001  the process ends here and says why
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            os._exit(CRASHED)

    def _serve(self) -> None:
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)
        for each in self._door.sockets if self._door is not None else ():
            self._poller.register(each, zmq.POLLIN)
        last = checked = written = time.monotonic()
        shown = (0, "")
        while self._leaving is None:
            ready = self._poller.poll(BUSY_POLL_MS if self._backlog else POLL_MS)
            if any(what == self._bell for what, _ in ready):
                self._woken()
            self._watch_door()
            self._hear()
            now = time.monotonic()
            unheard = now - last if now - last > GAP_S else 0.0
            last = now
            self._act(self._service.tick(now, unheard=unheard))
            self._flush()
            if now - checked > ENTRY_CHECK_S:
                checked = now
                self._check_entry(now)
            status = self._service.status
            # Who looks at it between two commands must not take the first for one that is still there.
            if now - written > ENTRY_WRITE_S or (status.hosts, status.model) != shown:
                written, shown = now, (status.hosts, status.model)
                self._entry.write(status)

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
        while self._outcomes:
            outcome = self._outcomes.popleft()
            if isinstance(outcome, Logged):
                self._logged -= 1
            self._act(self._service.outcome(outcome, time.monotonic()))

    def _check_entry(self, now: float) -> None:
        if not self._entry.present():
            log.warning("the registry entry is gone: leaving")
            self._act(self._service.drain(now))

    def _hear(self) -> None:
        for _ in range(BURST):
            # Asking first: an exception for every message costs more than the message.
            if not int(self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            first = self._router.recv(zmq.NOBLOCK, copy=False)
            peer, client = first.bytes, self._door.caller(first) if self._door is not None else ""
            parts, now = self._rest(), time.monotonic()
            if self._door is not None and not client:
                continue
            try:
                received = decode(parts)
            except ProtocolError as error:
                self._act(self._service.malformed(peer, str(error), now))
            else:
                self._act(self._service.receive(peer, received, now, client))

    def _rest(self) -> List[Bytes]:
        """The parts of a message, without a copy; one more than is allowed stands for all that are too many."""
        parts: List[Bytes] = []
        while self._router.getsockopt(zmq.RCVMORE):
            frame = self._router.recv(zmq.NOBLOCK, copy=False)
            if len(parts) <= MAX_PARTS:
                parts.append(frame.buffer)
        return parts

    def _act(self, actions: List[Action]) -> None:
        for action in actions:
            if isinstance(action, Run):
                self._tasks.put(action.task)
            elif isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Retire):
                self._entry.remove()
            else:
                self._leaving = action

    # Sending

    def _send(self, send: Send) -> None:
        waiting = any(other.peer == send.peer for other in self._backlog)
        if waiting or not self._try(send):
            if send.lossy:
                return
            self._backlog.append(send)
            if len(self._backlog) > MAX_BACKLOG:
                # A host that asks and never reads.
                self._forget(send.peer)

    def _try(self, send: Send) -> bool:
        """Hand a message to ZeroMQ; False when the peer's queue is full."""
        parts = encode(send.message, session=send.session, arrays=send.arrays)
        try:
            self._router.send(send.peer, zmq.NOBLOCK | zmq.SNDMORE)
            for index, part in enumerate(parts):
                more = zmq.SNDMORE if index + 1 < len(parts) else 0
                # An array is sent from where it is; it is never written to again.
                self._router.send(part, zmq.NOBLOCK | more, copy=index == 0)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(send.peer)
            return True
        self._service.sent(send)
        return True

    def _flush(self) -> None:
        """Send what waits, in order for each peer."""
        waiting, self._backlog = self._backlog, deque()
        full: List[bytes] = []
        for send in waiting:
            if send.peer in full or not self._try(send):
                full.append(send.peer)
                self._backlog.append(send)
        now = time.monotonic()
        self._stuck = {peer: self._stuck.get(peer, now) for peer in full}
        for peer in [peer for peer, since in self._stuck.items() if now - since > STUCK_S]:
            self._forget(peer)

    def _forget(self, peer: bytes) -> None:
        self._backlog = deque(send for send in self._backlog if send.peer != peer)
        self._act(self._service.gone(peer, time.monotonic()))

    # Leaving

    def _farewell(self) -> None:
        """Say what is left to say, answer late Hellos, close, and let the main thread end the process."""
        leaving = self._leaving
        self.status = leaving.status if leaving is not None else 0
        self._tasks.put(None)
        until = time.monotonic() + FAREWELL_S
        while time.monotonic() < until or (self._backlog and time.monotonic() < until + LINGER_MS / 1000):
            self._poller.poll(20)
            self._hear()
            self._flush()
        self._poller = zmq.Poller()
        self._remove_socket()
        if self._door is not None:
            self._door.close()
        self._router.close()
        self._context.term()
        self._entry.close()
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
