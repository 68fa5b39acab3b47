"""Which files are on their way from hosts into this machine, and how far each is. Pure: no socket, no disk, no clock.

A file belongs to the session that offered it, and every chunk is exactly the one that has to follow. What is kept is
kept, compared and named by the process that knows this machine's files; nothing here has ever seen a path.

    Offer ──> KeepTask(begin) ──> Kept(offset)  ──> Taken(offset, window)
    Chunk ──> KeepTask(chunk) ──> Kept(offset)  ──> Taken …
                                  Kept(failure) ──> Failed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, List, Sequence

from upx_protocol.actions import Failure, Keep, KeepTask, Kept
from upx_protocol.files import CHUNK, SHA256, WINDOW, Chunk, Offer, Taken

if TYPE_CHECKING:
    from upx_protocol.codec import Bytes
    from upx_protocol.replies import Replies
    from upx_protocol.sessions import Session, Sessions

#: Files on their way to one worker at a time, and those of one key: they may have as many windows in memory.
MAX_FILES, MAX_FILES_OF_CLIENT = 4, 2
#: A host that owes the next chunk for so long has given up: at 17 kB/s a chunk takes as long.
STALL_S = 15.0


@dataclass
class Arrival:
    """One file: ``kept`` of ``size`` bytes are on the disk, ``heard`` have come. ``due``: when the next has to come.

    ``begun``: the keeper has answered. ``session``: nobody's, empty, where it was given up before that.
    """

    session: str
    client: str
    id: int
    size: int
    due: float
    kept: int = 0
    heard: int = 0
    begun: bool = False

    def misfit(self, chunk: Chunk) -> str:
        """Why this cannot be the next chunk; empty where it is."""
        nbytes = chunk.bufs[0].nbytes
        if not self.begun or chunk.offset != self.heard:
            return f"a chunk from {chunk.offset} on, {self.heard} was due"
        if nbytes != min(CHUNK, self.size - self.heard):
            return f"a chunk of {nbytes} bytes at {chunk.offset} of {self.size}"
        return "more than the window" if self.heard + nbytes - self.kept > WINDOW else ""


class Receiving:
    """The arrivals of one worker. ``now`` is in seconds of any monotonic clock."""

    def __init__(self, sessions: Sessions, replies: Replies) -> None:
        self._sessions, self._replies = sessions, replies
        self._arrivals: Dict[int, Arrival] = {}
        self._number = 0

    def offer(self, session: Session, offer: Offer) -> None:
        """A host wants to send a file; it sends one at a time."""
        before = self._of(session)
        if any(not self._arrivals[each].begun for each in before):
            self._replies.say(session.name, Taken(offer.id, 0))
            return
        self._drop(before)
        if not session.files:
            self._fail(session.name, offer.id, "files are not taken here")
        elif SHA256.fullmatch(offer.sha256) is None or offer.size < 1:
            self._fail(session.name, offer.id, "a file has a digest and a size")
        elif self._crowded(session.client):
            self._replies.say(session.name, Taken(offer.id, 0))
        else:
            self._number += 1
            self._arrivals[self._number] = Arrival(
                session.name, session.client, offer.id, offer.size, session.seen + STALL_S
            )
            self._keep(KeepTask(self._number, "begin", offer.sha256, offer.size, session.client))

    def chunk(self, session: Session, chunk: Chunk, parts: Sequence[Bytes]) -> None:
        """The next bytes. Those of a file that is given up were on their way, and are passed over."""
        number = next((each for each in self._of(session) if self._arrivals[each].id == chunk.id), None)
        if number is None:
            return
        arrival = self._arrivals[number]
        misfit = arrival.misfit(chunk)
        if misfit:
            self._drop([number])
            self._fail(session.name, chunk.id, misfit)
            return
        arrival.heard += chunk.bufs[0].nbytes
        arrival.due = session.seen + STALL_S
        self._keep(KeepTask(number, "chunk", data=parts[0]))

    def kept(self, outcome: Kept, now: float) -> None:
        """What became of a task; of a file that was given up meanwhile nobody is told."""
        arrival = self._arrivals.get(outcome.number)
        if arrival is None:
            return
        if outcome.failure is not None or outcome.later:
            del self._arrivals[outcome.number]
        if outcome.failure is not None:
            self._replies.fail(arrival.session, arrival.id, 0, outcome.failure)
        elif outcome.later:
            self._replies.say(arrival.session, Taken(arrival.id, outcome.offset))
        else:
            if not arrival.begun:
                arrival.begun, arrival.heard = True, outcome.offset
            arrival.kept, arrival.due = outcome.offset, now + STALL_S
            if arrival.kept >= arrival.size:
                del self._arrivals[outcome.number]
            self._replies.say(arrival.session, Taken(arrival.id, arrival.kept, WINDOW))

    def tick(self, now: float, *, unheard: float) -> None:
        """Give up files whose host has left, or owes the next chunk for too long; a slow disk is not its fault."""
        for number, arrival in list(self._arrivals.items()):
            arrival.due += unheard
            if self._sessions.named(arrival.session) is None:
                self._drop([number])
            elif arrival.begun and arrival.heard == arrival.kept and now > arrival.due:
                self._drop([number])
                self._fail(arrival.session, arrival.id, f"nothing came for {STALL_S:g} s", retryable=True)

    def _crowded(self, client: str) -> bool:
        of_client = sum(each.client == client for each in self._arrivals.values()) if client else 0
        return len(self._arrivals) >= MAX_FILES or of_client >= MAX_FILES_OF_CLIENT

    def _of(self, session: Session) -> List[int]:
        return [number for number, each in self._arrivals.items() if each.session == session.name]

    def _drop(self, numbers: List[int]) -> None:
        for number in numbers:
            if not self._arrivals[number].begun:
                # Its place is taken until the keeper has answered: what it still has to do would fill the memory.
                self._arrivals[number].session = ""
                continue
            del self._arrivals[number]
            self._keep(KeepTask(number, "end"))

    def _fail(self, session: str, number: int, why: str, *, retryable: bool = False) -> None:
        failure = Failure("transient" if retryable else "input", retryable, why)
        self._replies.fail(session, number, 0, failure)

    def _keep(self, task: KeepTask) -> None:
        self._replies.do(Keep(task))
