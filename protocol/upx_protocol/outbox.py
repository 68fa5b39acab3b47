"""What a worker sends: at once where a host's queue has room, else in order as it gets some."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, Dict, Tuple

import zmq

from upx_protocol.codec import encode
from upx_protocol.errors import MalformedError
from upx_protocol.messages import TileDone

if TYPE_CHECKING:
    from upx_protocol.actions import Send
    from upx_protocol.arrays import Bytes

log = logging.getLogger("upx.worker")

#: Messages that may wait for one host that does not read.
MAX_WAITING = 1_024
#: A host that reads nothing for so long, while something waits for it, has left.
STUCK_S = 30.0
#: Bytes of results that ZeroMQ is given at a time for one host, where hosts are far away: enough for any link. ZeroMQ
#: itself counts messages alone, and what it holds outlives a session.
MOST_FLYING = 64 * 1024 * 1024


class Outbox:
    """For who holds the socket. ``sent`` hears of what went out, ``gone`` of hosts that are lost or do not read.

    ``lives``: whether a session is still there; nobody waits for the results of one that is not. ``weigh``: see
    ``MOST_FLYING``. ``pipe`` tells a session that a result lies in the ring, False where it cannot.
    """

    def __init__(
        self,
        router: zmq.Socket[bytes],
        *,
        sent: Callable[[Send], None],
        gone: Callable[[bytes], None],
        lives: Callable[[str], bool],
        pipe: Callable[[str, Bytes], bool],
        weigh: bool = False,
    ) -> None:
        self._router, self._sent, self._gone, self._lives, self._weigh = router, sent, gone, lives, weigh
        self._pipe = pipe
        self._waiting: Dict[bytes, Deque[Send]] = {}
        self._stuck: Dict[bytes, float] = {}
        self._flying: Dict[bytes, Deque[Tuple[zmq.MessageTracker, int]]] = {}

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def send(self, send: Send) -> None:
        """Send it now or when there is room; what is lossy is dropped where there is none."""
        queue = self._waiting.get(send.peer)
        if queue is None and self._try(send):
            return
        if send.lossy:
            return
        queue = self._waiting.setdefault(send.peer, deque())
        queue.append(send)
        if len(queue) > MAX_WAITING:
            # A host that asks and never reads.
            self._give_up(send.peer, f"{MAX_WAITING} answers")

    def _try(self, send: Send) -> bool:
        """Hand a message to ZeroMQ; False when the peer's queue is full and it has to wait."""
        if send.arrays and self._weigh and self._on_the_way(send.peer) > MOST_FLYING:
            return False
        try:
            parts = encode(send.message, session=send.session, arrays=send.arrays)
        except (MalformedError, TypeError, ValueError, OverflowError):
            # Too long, or made of what the wire has no word for. The others' answers still go out.
            log.exception("%s cannot be said: its host's session ends", send.message.kind())
            self._forget(send.peer)
            return True
        if type(send.message) is TileDone and not send.arrays and self._pipe(send.session, parts[0]):
            self._sent(send)
            return True
        try:
            self._router.send(send.peer, zmq.NOBLOCK | zmq.SNDMORE)
            for index, part in enumerate(parts):
                more = zmq.SNDMORE if index + 1 < len(parts) else 0
                # An array is sent from where it is; it is never written to again.
                track = self._weigh and index > 0
                tracker = self._router.send(part, zmq.NOBLOCK | more, copy=index == 0, track=track)
                if track and tracker is not None:
                    self._flying.setdefault(send.peer, deque()).append((tracker, memoryview(part).nbytes))
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(send.peer)
            return True
        self._sent(send)
        return True

    def _on_the_way(self, peer: bytes) -> int:
        """Bytes of results that ZeroMQ still holds for a peer."""
        flying = self._flying.get(peer, deque())
        while flying and flying[0][0].done:
            flying.popleft()
        if not flying:
            self._flying.pop(peer, None)
        return sum(nbytes for _, nbytes in flying)

    def flush(self) -> None:
        """Send what waits, in order for each peer; who has not read for too long is given up."""
        now = time.monotonic()
        for peer, queue in list(self._waiting.items()):
            length = len(queue)
            while queue:
                send = queue.popleft()
                if not (send.arrays and not self._lives(send.session)) and not self._try(send):
                    queue.appendleft(send)
                    break
            if not queue:
                self._stuck.pop(peer, None)
                self._waiting.pop(peer, None)
            elif len(queue) < length or peer not in self._stuck:
                self._stuck[peer] = now
            elif now - self._stuck[peer] > STUCK_S:
                self._give_up(peer, f"{len(queue)} answers, for {STUCK_S:g} s,")
        for peer in list(self._flying):
            self._on_the_way(peer)

    def _give_up(self, peer: bytes, what: str) -> None:
        log.warning("a host leaves %s unread: its session ends", what)
        self._forget(peer)

    def _forget(self, peer: bytes) -> None:
        self._waiting.pop(peer, deque()).clear()
        self._stuck.pop(peer, None)
        self._gone(peer)
