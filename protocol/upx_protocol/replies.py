"""Collects what a worker is going to say and do, by the session's name; a session that has ended hears nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Sequence

from upx_protocol.actions import Action, Failure, Send
from upx_protocol.messages import Failed, Log, Message, Pong, Progress, Reject

if TYPE_CHECKING:
    from upx_protocol.packing import Piece
    from upx_protocol.sessions import Sessions

#: What may be lost when a host does not read: it is said again, or nobody waits for it.
LOSSY = (Pong, Progress, Log)
LOSSY_REASONS = ("malformed", "session")


def weight(arrays: Sequence[Piece]) -> int:
    """Bytes of what travels with a message."""
    return sum(array.nbytes for array in arrays)


class Replies:
    """The actions of one step, in order."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._actions: List[Action] = []

    def say(self, session: str, message: Message, arrays: Sequence[Piece] = ()) -> None:
        """A message, with its arrays, to a session."""
        known = self._sessions.named(session)
        if known is not None:
            known.unsent += weight(arrays)
            self.say_to_peer(known.peer, message, session, arrays)

    def say_to_peer(self, peer: bytes, message: Message, session: str = "", arrays: Sequence[Piece] = ()) -> None:
        """A message to a peer that may have no session."""
        lossy = message.reason in LOSSY_REASONS if isinstance(message, Reject) else isinstance(message, LOSSY)
        self.do(Send(peer, message, session, tuple(arrays), lossy=lossy))

    def fail(self, session: str, number: int, attempt: int, failure: Failure) -> None:
        """``Failed`` for the request of that id and attempt."""
        message = Failed(number, attempt, failure.failure, failure.retryable, failure.message)
        self.say(session, message)

    def say_all(self, message: Message) -> None:
        """A message to every session."""
        for session in self._sessions.all():
            self.say(session.name, message)

    def do(self, action: Action) -> None:
        """Any other action."""
        self._actions.append(action)

    def take(self) -> List[Action]:
        """What was collected; the next step begins empty."""
        actions, self._actions = self._actions, []
        return actions
