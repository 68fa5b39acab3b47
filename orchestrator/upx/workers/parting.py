"""The end of a pool: goodbye to every worker, and the wait for those that are tied to this host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upx.workers.channel import Hub
    from upx.workers.link import Link

# How soon one that is not quite here, or not quite gone, is looked at again.
HURRIED_S = 0.01


def part(links: dict[int, Link], hub: Hub, *, kill: bool, timeout: float) -> None:
    """Say goodbye to every worker of a pool; wait for the tied ones."""
    left, began = list(links.values()), time.monotonic()
    for link in left:
        link.leave(kill=kill)
    while left:
        share = (time.monotonic() - began) / max(timeout, 0.001)
        left = [link for link in left if not link.left(share)]
        if left:
            hub.wait(HURRIED_S)
    links.clear()
