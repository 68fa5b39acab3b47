"""What a worker sends: at once where a host's queue has room, else in order as it gets some."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, Dict, List

import zmq

from upx_protocol.codec import encode

if TYPE_CHECKING:
    from upx_protocol.actions import Send

#: Messages that may wait for one that does not read, of all hosts.
MAX_BACKLOG = 1_024
#: A host that reads nothing for so long, while something waits for it, has left.
STUCK_S = 30.0


class Outbox:
    """For who holds the socket. ``sent`` hears of what went out, ``gone`` of hosts that are lost or do not read."""

    def __init__(
        self, router: zmq.Socket[bytes], *, sent: Callable[[Send], None], gone: Callable[[bytes], None]
    ) -> None:
        self._router, self._sent, self._gone = router, sent, gone
        self._backlog: Deque[Send] = deque()
        self._stuck: Dict[bytes, float] = {}

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._backlog)

    def send(self, send: Send) -> None:
        """Send it now or when there is room; what is lossy is dropped where there is none."""
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
        self._sent(send)
        return True

    def flush(self) -> None:
        """Send what waits, in order for each peer; who has not read for too long is given up."""
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
        self._gone(peer)
