"""Answers ``Echo``: what came goes back as it is; a link is measured with what it would carry anyway. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

from upx_protocol.arrays import view
from upx_protocol.messages import Credit, Echo, Echoed, Reject

if TYPE_CHECKING:
    from upx_protocol.codec import Bytes
    from upx_protocol.replies import Replies
    from upx_protocol.sessions import Session


def echo(replies: Replies, session: Session, message: Echo, parts: Tuple[Bytes, ...]) -> None:
    """Send it back, within the credit of the session."""
    nbytes = sum(buffer.nbytes for buffer in message.bufs)
    if len(parts) != 1 or not session.charge(1, nbytes):
        replies.say(session.name, Reject(message.id, "credit", "one buffer, within the credit"))
        return
    replies.say(session.name, Echoed(message.id, message.bufs), [view(message.bufs[0], parts[0])])
    replies.say(session.name, Credit(1, nbytes))
