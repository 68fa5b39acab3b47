"""Whom a worker turned away: said at once for the first, then how often, so that nobody fills a disk by knocking."""

from __future__ import annotations

import logging
from typing import Dict, Tuple

log = logging.getLogger("upx.door")

#: Seconds between two words about the same.
TELL_S = 10.0
#: Refusals that are told apart in that time; the rest is told by what it is, whoever it is from.
MAX_TOLD = 64
OTHERS = "others"


class Refusals:
    """Times are seconds of any monotonic clock."""

    def __init__(self, now: float) -> None:
        self._told = now
        self._more: Dict[Tuple[str, str], int] = {}

    def note(self, what: str, whom: str, detail: str = "") -> None:
        """Something was refused; ``detail``, of the first alone, may be anything that a stranger chose."""
        case = (what, whom)
        if case not in self._more and len(self._more) >= MAX_TOLD:
            case = (what, OTHERS)
        if case in self._more:
            self._more[case] += 1
        else:
            self._more[case] = 0
            log.warning("refused: %s from %s%s", what, whom, f" ({detail})" if detail else "")

    def tell(self, now: float) -> None:
        """Say what has come since, when it is time."""
        if now - self._told > TELL_S:
            self._told = now
            self.tell_all()

    def tell_all(self) -> None:
        """Say it now."""
        for (what, whom), more in sorted(self._more.items()):
            if more:
                log.warning("refused: %s from %s, %d times more", what, whom, more)
        self._more.clear()
