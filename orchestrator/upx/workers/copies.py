"""Second copies: which batch an idle worker should compute once more, since whoever has it will be long. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from upx.workers import pacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upx.workers.draft import Draft
    from upx.workers.state import Batch, Sent, Worker

# How late a batch may be before it gets a copy whatever is known; longer while nothing of its size is.
LATE_S, LATE_UNSEEN_S = 1.0, 10.0
# A copy is worth its cost where it comes in so much of the time that the original still needs.
WORTH = 0.75


def worth(draft: Draft, idle: Worker, computed: Mapping[int, int]) -> Sent | None:
    """The batch of another that gains most by a copy: one link, or both, may be slow.

    ``computed``: how many workers have a batch of that id, and are to answer it.
    """
    found = [
        (_gain(draft, idle, other, index), sent)
        for other in draft.workers.values()
        for index, sent in enumerate(other.sent)
        if (other.far or idle.far) and not sent.dropped and not sent.batch.alone and computed[sent.batch.id] == 1
    ]  # fmt: skip
    gain, slow = max(found, key=lambda each: each[0], default=(0.0, None))
    return slow if gain > 0 else None


def _gain(draft: Draft, idle: Worker, other: Worker, index: int) -> float:
    """Seconds that a copy of a worker's batch would save, infinite where that is late already; 0 for nothing."""
    sent = other.sent[index]
    left = pacing.left(other, index, draft.now)
    if -left > _late_after(draft, sent.batch):
        return math.inf
    copied = pacing.wait(idle, sent.batch, draft.now)
    return left - copied if 0 < copied < WORTH * left else 0.0


def _late_after(draft: Draft, batch: Batch) -> float:
    """Seconds after which a batch is late: twice what most of its size took, and a second at least."""
    seen = sorted(draft.state.seen.get(batch.pixels, ()))
    return max(LATE_S, 2 * seen[len(seen) // 2]) if seen else LATE_UNSEEN_S
