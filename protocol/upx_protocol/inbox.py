"""What a worker hears: one message after the other, with its sender and the key that it showed at the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Tuple

import zmq

from upx_protocol.codec import MAX_PARTS, Bytes

if TYPE_CHECKING:
    from upx_protocol.door import Door

#: Messages taken in one go before the loop looks at anything else.
BURST = 64


class Inbox:
    """For who holds the socket. ``door``: None on one machine, where a folder's permissions are the door."""

    def __init__(self, router: zmq.Socket[bytes], door: Optional[Door]) -> None:
        self._router, self._door = router, door

    def take(self) -> Optional[Tuple[bytes, Optional[str], List[Bytes]]]:
        """(route, key, parts) of the next message; the key is None where its holder may not speak any more."""
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
