"""Answers ``Ring``: the memory that a host offers is mapped, or not. Pure but for what is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional, Tuple

from upx_protocol.messages import Mapped, Ring

if TYPE_CHECKING:
    from upx_protocol.replies import Replies
    from upx_protocol.ring import Memory
    from upx_protocol.sessions import Session

#: (session, offer) → the memory, and whether the pipes beside it are open; OSError, ValueError or OverflowError where
#: the memory cannot be mapped.
Attach = Callable[["Session", Ring], Tuple["Memory", bool]]


def map_ring(replies: Replies, session: Session, offer: Ring, attach: Optional[Attach]) -> None:
    """Map it with ``attach``, None where hosts are far away. One for each session, and for as long."""
    why, pipes = "there is a ring already" if session.ring is not None else "", False
    if attach is None:
        why = "no shared memory here"
    elif not why:
        try:
            session.ring, pipes = attach(session, offer)
        except (OSError, ValueError, OverflowError) as error:
            why = str(error)[:200]
    replies.say(session.name, Mapped(offer.id, ok=not why, message=why, pipes=pipes))
