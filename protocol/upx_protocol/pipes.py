"""The pipes of a worker's sessions: what comes through them, and what goes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Callable, Dict, List, Tuple

import zmq

from upx_protocol.pipe import Pipe, connect
from upx_protocol.ring import Memory, attach

if TYPE_CHECKING:
    from upx_protocol.arrays import Bytes
    from upx_protocol.messages import Ring
    from upx_protocol.sessions import Session

log = logging.getLogger("upx.worker")


class Pipes:
    """For who holds the socket. ``poller`` is what it waits on; sessions go by their names."""

    def __init__(self, poller: zmq.Poller) -> None:
        self._poller = poller
        self._pipes: Dict[str, Tuple[bytes, Pipe]] = {}

    def __bool__(self) -> bool:
        return bool(self._pipes)

    def attach(self, session: Session, offer: Ring) -> Tuple[Memory, bool]:
        """Map a host's ring, and open the pipes that it offers with it, where it does.

        OSError, ValueError or OverflowError where the memory cannot be mapped; pipes that cannot be had are no error.
        """
        memory = attach(offer)
        return memory, offer.reader >= 0 and self._open(session, offer)

    def _open(self, session: Session, offer: Ring) -> bool:
        try:
            pipe = connect(offer)
        except (OSError, ValueError, OverflowError) as error:
            log.warning("a host's pipes cannot be opened: %s", error)
            return False
        self._pipes[session.name] = (session.peer, pipe)
        self._poller.register(pipe.fileno(), zmq.POLLIN)
        return True

    def take(self) -> List[Tuple[bytes, str, List[Bytes]]]:
        """All that have come, as ``Inbox`` takes them: (peer, no key, parts)."""
        came: List[Tuple[bytes, str, List[Bytes]]] = []
        for name, (peer, pipe) in tuple(self._pipes.items()):
            for message in pipe.receive():
                came.append((peer, "", [message]))  # noqa: PERF401  a list for every look costs more than the loop
            if pipe.ended:
                self._close(name)
        return came

    def send(self, session: str, header: Bytes) -> bool:
        """Send a message without waiting; False where it has to go through the socket."""
        found = self._pipes.get(session)
        return found is not None and found[1].send(header)

    def keep(self, lives: Callable[[str], bool]) -> None:
        """Close those of sessions that have ended."""
        for name in [name for name in self._pipes if not lives(name)]:
            self._close(name)

    def close(self) -> None:
        """Close all."""
        self.keep(lambda _session: False)

    def _close(self, name: str) -> None:
        _, pipe = self._pipes.pop(name)
        self._poller.unregister(pipe.fileno())
        pipe.close()
