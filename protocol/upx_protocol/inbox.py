"""What a worker hears: one message after the other, with its sender and the key that it showed at the door."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Deque, List, Optional, Tuple

import zmq

from upx_protocol.codec import MAX_PARTS, Bytes

if TYPE_CHECKING:
    from upx_protocol.door import Door
    from upx_protocol.pipes import Pipes

Taken = Tuple[bytes, Optional[str], List[Bytes]]

#: Messages taken in one go before the loop looks at anything else.
BURST = 64


class Inbox:
    """For who holds the socket. ``door``: None on one machine, where a folder's permissions are the door."""

    def __init__(self, router: zmq.Socket[bytes], door: Optional[Door], pipes: Pipes) -> None:
        self._router, self._door, self._pipes = router, door, pipes
        self._came: Deque[Taken] = deque()

    @property
    def came(self) -> bool:
        """Whether something has come that was not taken."""
        return bool(self._came)

    def __bool__(self) -> bool:
        """Whether something may be there that the socket knows nothing of."""
        return bool(self._pipes or self._came)

    def take(self) -> Optional[Taken]:
        """(route, key, parts) of the next message; the key is None where its holder may not speak any more.

        What a host put into its pipe before it sent a message through the socket comes before that.
        """
        came = self._came
        if not came and self._pipes:
            # Without a look at the socket, which takes as long as the whole pipe.
            came.extend(self._pipes.take())
        if came:
            return came.popleft()
        received = self._received()
        if received is not None and self._pipes:
            came.extend(self._pipes.take())
            if came:
                came.append(received)
                return came.popleft()
        return received

    def _received(self) -> Optional[Taken]:
        # Asking first: an exception for every message costs more than the message.
        if not int(self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            return None
        if self._door is None:
            return self._router.recv(zmq.NOBLOCK), "", self._rest()
        frame = self._router.recv(zmq.NOBLOCK, copy=False)
        return frame.bytes, self._door.caller(frame) or None, self._rest()

    def _rest(self) -> List[Bytes]:
        """The parts of a message, without a copy; one more than is allowed stands for all that are too many."""
        parts: List[Bytes] = []
        while self._router.getsockopt(zmq.RCVMORE):
            frame = self._router.recv(zmq.NOBLOCK, copy=False)
            if len(parts) <= MAX_PARTS:
                parts.append(frame.buffer)
        return parts
