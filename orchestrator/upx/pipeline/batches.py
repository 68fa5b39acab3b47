"""Which tiles travel together, and the seed of each; pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.specs import TilePlan


def tile_seed(seed: int, index: int) -> int:
    """The seed of one tile: tile 0 has the job's own, tile i one that follows from (seed, i); 0 <= seed < 2**63."""
    if index == 0:
        return seed
    mixed = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(mixed, "little") >> 1


def batches(plan: TilePlan, size: int) -> Iterator[list[int]]:
    """Tile indices in order, at most ``size`` of one shape together."""
    group: list[int] = []
    for index, box in enumerate(plan.boxes):
        first = plan.boxes[group[0]] if group else box
        if group and (len(group) == size or (first.height, first.width) != (box.height, box.width)):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
