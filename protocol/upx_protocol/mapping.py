"""Answers ``Ring``: the memory that a host offers is mapped, or not. Pure but for what is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional

from upx_protocol.messages import Mapped, Ring

if TYPE_CHECKING:
    from upx_protocol.replies import Replies
    from upx_protocol.ring import Memory
    from upx_protocol.sessions import Session


def map_ring(replies: Replies, session: Session, offer: Ring, attach: Optional[Callable[[Ring], Memory]]) -> None:
    """Map it with ``attach``, None where hosts are far away. One for each session, and for as long."""
    why = "there is a ring already" if session.ring is not None else ""
    if attach is None:
        why = "no shared memory here"
    elif not why:
        try:
            session.ring = attach(offer)
        except (OSError, ValueError, OverflowError) as error:
            why = str(error)[:200]
    replies.say(session.name, Mapped(offer.id, ok=not why, message=why))
