"""Protocol versions: ours, and the choice of one that both sides speak."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Version(NamedTuple):
    """A protocol version; a higher ``major`` breaks, a higher ``minor`` adds."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


#: The oldest and the newest version that this package speaks.
OLDEST = Version(1, 0)
NEWEST = Version(1, 1)

#: The layout of ``Hello``, ``Welcome`` and ``Reject``; frozen for ever, so that any two versions can say no politely.
HANDSHAKE = 1


def highest_common(
    oldest: Version, newest: Version, *, our_oldest: Version = OLDEST, our_newest: Version = NEWEST
) -> Optional[Version]:
    """The highest version inside both ranges; None where they do not meet."""
    top = min(newest, our_newest)
    return top if top >= max(oldest, our_oldest) else None
