"""The worker's book of hosts: who has a session, what it may send, whose batch is next.

Pure: no socket, no clock; the time comes with every call, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional, Tuple

from upx_protocol.packing import opened
from upx_protocol.ring import COMPLAINT
from upx_protocol.turns import Turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_protocol.codec import Bytes
    from upx_protocol.messages import Upscale
    from upx_protocol.ring import Memory

#: Hosts that a worker serves at a time, and those of one key.
MAX_SESSIONS, MAX_OF_CLIENT = 64, 16
#: Twice the time between two pings over a network: the next session of the same key need not wait for this one's end.
LOST_S = 10.0


@dataclass(frozen=True)
class Ticket:
    """A batch that was let in: whose it is, what it cost, and its tiles: as they came, or where they lie."""

    session: str
    request: Upscale
    parts: Tuple[Bytes, ...]
    ring: Optional[Memory] = None

    @property
    def key(self) -> Tuple[int, int]:
        """(id, attempt): what names a batch inside its session."""
        return (self.request.id, self.request.attempt)

    @property
    def tiles(self) -> int:
        """How many tiles it holds."""
        return len(self.request.bufs)

    @property
    def nbytes(self) -> int:
        """Bytes of all of its tiles."""
        return sum(buffer.nbytes for buffer in self.request.bufs)

    @property
    def pixels(self) -> int:
        """Input pixels of all of its tiles; the measure of a fair share."""
        height, width = self.request.bufs[0].shape[:2]
        return height * width * self.tiles

    def arrays(self) -> List[NDArray[Any]]:
        """The tiles, read-only; MalformedError for one that was packed and does not unfold."""
        if self.ring is not None and self.request.outs:
            return [self.ring.read(buffer) for buffer in self.request.bufs]
        # The codec compared their numbers.
        return [opened(buffer, part) for buffer, part in zip(self.request.bufs, self.parts)]  # noqa: B905

    def begin(self) -> None:
        """Note where the host sees it, whatever becomes of this process, that the batch is being computed."""
        if self.ring is not None and self.request.outs:
            self.ring.begin(self.request.bufs[0])

    def room(self, index: int) -> Optional[NDArray[Any]]:
        """Where a tile's result has to lie; None for one that travels. TransientError for a slot that is lost."""
        if self.ring is None or not self.request.outs:
            return None
        return self.ring.room(self.request.outs[index])


@dataclass
class Session:
    """One host: its credit, its queue, its ring and the newest generation seen there.

    ``client``: the key that it showed at the door, where there is one. ``files``: it may send files that are missing.
    ``unsent``: bytes of results that wait for it.
    """

    peer: bytes
    name: str
    credit_tiles: int
    credit_bytes: int
    seen: float
    queue: Deque[Ticket] = field(default_factory=deque["Ticket"])
    spent_tiles: int = 0
    spent_bytes: int = 0
    ring: Optional[Memory] = None
    gen: int = 0
    client: str = ""
    files: bool = False
    unsent: int = 0

    @property
    def owner(self) -> str:
        """Whose it is: a client's with all of its other sessions, or nobody else's."""
        return self.client or self.name

    def affords(self, tiles: int, nbytes: int) -> bool:
        """Whether its credit suffices for so much more, without exception."""
        return self.spent_tiles + tiles <= self.credit_tiles and self.spent_bytes + nbytes <= self.credit_bytes

    def charge(self, tiles: int, nbytes: int) -> bool:
        """Spend credit; False, with nothing spent, where it does not suffice.

        A lone tile is always in credit while nothing else of the session is, however large it is.
        """
        lone = tiles == 1 and not self.spent_tiles
        if not (lone or self.affords(tiles, nbytes)):
            return False
        self.spent_tiles += tiles
        self.spent_bytes += nbytes
        return True

    def refund(self, tiles: int, nbytes: int) -> None:
        """Credit that was given back to the host."""
        self.spent_tiles = max(0, self.spent_tiles - tiles)
        self.spent_bytes = max(0, self.spent_bytes - nbytes)

    def left_behind_by(self, other: Session) -> bool:
        """Whether it is the other one, which speaks now, or what a cut link left of the same client's."""
        return other is self or (bool(self.client) and self.client == other.client and other.seen - self.seen > LOST_S)

    def lends(self, request: Upscale) -> str:
        """Why a batch's slots cannot be used; empty where they can. Each generation is newer than all before it."""
        newest, ring = self.gen, self.ring
        for buffer in (*request.bufs, *request.outs):
            if ring is None or not ring.holds(buffer):
                return f"{COMPLAINT}slot {buffer.slot} lies outside"
            if buffer.gen <= newest or not ring.stamped(buffer):
                return f"{COMPLAINT}slot {buffer.slot} is not of generation {buffer.gen}"
            newest = buffer.gen
        self.gen = newest
        return ""


class Sessions:
    """All sessions of a worker. ``credit_tiles`` and ``credit_bytes``: what one host alone is given.

    ``most_unsent``: no batch of a client begins, and no echo of its is made, while more bytes than this wait for it; 0:
    however many do.
    """

    def __init__(self, *, credit_tiles: int, credit_bytes: int, most_unsent: int = 0) -> None:
        self._credit, self._most_unsent = (credit_tiles, credit_bytes), most_unsent
        self._by_peer: Dict[bytes, Session] = {}
        self._by_name: Dict[str, Session] = {}
        self._owners = Turns()
        self._within: Dict[str, Turns] = {}

    def __len__(self) -> int:
        return len(self._by_peer)

    def all(self) -> List[Session]:
        """Every session, oldest first."""
        return list(self._by_peer.values())

    @property
    def full(self) -> bool:
        """Whether one more host would be too many."""
        return len(self._by_peer) >= MAX_SESSIONS

    def of_client(self, client: str) -> List[Session]:
        """The sessions of one key."""
        return [session for session in self._by_peer.values() if session.client == client]

    @property
    def queued(self) -> int:
        """Tiles that wait."""
        return sum(ticket.tiles for session in self._by_peer.values() for ticket in session.queue)

    def open(self, peer: bytes, name: str, now: float, client: str = "") -> Session:
        """A new session, which ends its peer's last. Credit shrinks with the number of hosts, to one tile at least."""
        before = self._by_peer.get(peer)
        if before is not None:
            self.close(before)
        share = len(self._by_peer) + 1
        tiles, nbytes = max(1, self._credit[0] // share), max(1, self._credit[1] // share)
        session = Session(peer, name, tiles, nbytes, seen=now, client=client)
        self._by_peer[peer] = self._by_name[name] = session
        self._within.setdefault(session.owner, Turns())
        return session

    def of_peer(self, peer: bytes) -> Optional[Session]:
        """The session of a peer, whatever it calls it."""
        return self._by_peer.get(peer)

    def find(self, peer: bytes, name: str) -> Optional[Session]:
        """The session of that name, if it is that peer's own."""
        session = self._by_peer.get(peer)
        return session if session is not None and session.name == name else None

    def named(self, name: str) -> Optional[Session]:
        """The session of that name, None where it has ended."""
        return self._by_name.get(name)

    def close(self, session: Session) -> None:
        """End a session; its queue goes with it."""
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer], self._by_name[session.name]
            self._within[session.owner].forget(session.name)
            if not any(other.owner == session.owner for other in self._by_peer.values()):
                self._owners.forget(session.owner)
                del self._within[session.owner]

    def silent(self, now: float, after: float) -> List[Session]:
        """Sessions from which nothing came for so many seconds."""
        return [session for session in self._by_peer.values() if now - session.seen > after]

    def forgive(self, seconds: float) -> None:
        """Time in which the worker itself did not listen is nobody's silence."""
        for session in self._by_peer.values():
            session.seen += seconds

    def push(self, session: Session, ticket: Ticket) -> None:
        """Queue a batch."""
        owner = session.owner
        if not any(other.queue for other in self._by_peer.values() if other.owner == owner):
            self._owners.come(owner)
        if not session.queue:
            self._within[owner].come(session.name)
        session.queue.append(ticket)

    def pop(self) -> Optional[Ticket]:
        """The next batch: of the client that was given the fewest pixels so far, then of its session that was.

        Nothing for who has results enough that are still to be sent.
        """
        waiting: Dict[str, Dict[str, Session]] = {}
        for session in self._by_peer.values():
            if session.queue and self.gorged(session.owner):
                # It earns nothing by not reading.
                self._owners.come(session.owner)
            elif session.queue:
                waiting.setdefault(session.owner, {})[session.name] = session
        if not waiting:
            return None
        owner = self._owners.choose(waiting)
        session = waiting[owner][self._within[owner].choose(waiting[owner])]
        ticket = session.queue.popleft()
        self._owners.give(owner, ticket.pixels)
        self._within[owner].give(session.name, ticket.pixels)
        return ticket

    def gorged(self, owner: str) -> bool:
        """Whether more waits for an owner's sessions to read than may."""
        if not self._most_unsent:
            return False
        return sum(each.unsent for each in self._by_peer.values() if each.owner == owner) > self._most_unsent

    def withdraw(self, session: Session, key: Tuple[int, int]) -> Optional[Ticket]:
        """Take a queued batch out; None where it is not queued."""
        for ticket in session.queue:
            if ticket.key == key:
                session.queue.remove(ticket)
                return ticket
        return None
