"""Answers ``Echo``: what came goes back as it is; a link is measured with what it would carry anyway. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

from upx_protocol.arrays import view
from upx_protocol.messages import Credit, Echo, Echoed, Reject

if TYPE_CHECKING:
    from upx_protocol.codec import Bytes
    from upx_protocol.replies import Replies
    from upx_protocol.sessions import Session, Sessions


def echo(sessions: Sessions, replies: Replies, session: Session, message: Echo, parts: Tuple[Bytes, ...]) -> None:
    """Send it back, within the credit of the session, and while its owner reads what it asks for.

    There is no exception for a lone one: an echo costs its sender nothing, and lies here until it is read.
    """
    nbytes = sum(buffer.nbytes for buffer in message.bufs)
    if len(parts) != 1 or not session.affords(1, nbytes) or sessions.gorged(session.owner):
        replies.say(
            session.name, Reject(message.id, "credit", "one buffer, within the credit, while little waits to be read")
        )
        return
    session.charge(1, nbytes)
    replies.say(session.name, Echoed(message.id, message.bufs), [view(message.bufs[0], parts[0])])
    replies.say(session.name, Credit(1, nbytes))
