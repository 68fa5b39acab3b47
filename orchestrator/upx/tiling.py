"""Decide how a picture is cut into tiles, and pad a tile to what a network demands; pure numpy.

``overlap`` counts on each inner side of a tile: two neighbours share at least ``2 * overlap`` pixels, so that with
crop stitching every kept pixel lies at least ``overlap`` input pixels away from an edge at which the network saw
padding instead of picture.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from upx.errors import ParameterError
from upx.specs import Box, SizeRequirements, TilePlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Box", "TilePlan", "pad_tile", "padded_size", "plan_tiles", "smallest_tile", "unpad"]

Array: TypeAlias = "NDArray[Any]"

# A tile that keeps less than this of its width between two overlaps costs many times what it gives.
_LEAST_CORE = 8


def plan_tiles(
    height: int,
    width: int,
    *,
    tile: int | None,
    overlap: int,
    size: SizeRequirements,
    align: int = 1,
    minimum_tile: int = 32,
    shrink: bool = True,
) -> TilePlan:
    """Cut a picture of ``height`` x ``width`` into tiles of at most ``tile`` pixels a side; None: one tile, all of it.

    All tiles have one shape, the last row and column move inward; with ``align`` > 1 they start at its multiples
    instead and the last may be smaller, unless they are too small to keep a multiple between their overlaps: then the
    plan's ``align`` is 1. ``shrink`` makes tiles as small as their number allows (an automatic tile).
    ParameterError: the tile leaves nothing between its overlaps, or a fixed-size network should take it all.
    """
    if height < 1 or width < 1 or overlap < 0:
        raise ParameterError(f"cannot cut {width} x {height} pixels with an overlap of {overlap}")
    longest = max(height, width)
    limit = _limit(longest, tile=tile, size=size)
    least = smallest_tile(overlap=overlap, size=size, minimum_tile=minimum_tile)
    if limit < min(longest, least):
        raise ParameterError(
            f"a tile of {tile or limit} pixels is too small with an overlap of {overlap}",
            hint=f"use --tile {least} or more, or a smaller --overlap",
        )
    align = align if limit - 2 * overlap >= align else 1
    sides = [min(limit, height), min(limit, width)]
    if shrink and align == 1 and not size.fixed:
        sides = [_shrunk(length, limit, overlap, size, minimum_tile) for length in (height, width)]
    if size.square:
        sides = [min(max(sides), height), min(max(sides), width)]
    vertical = _spans(height, sides[0], overlap, align)
    horizontal = _spans(width, sides[1], overlap, align)
    padded_height, padded_width = padded_size(sides[0], sides[1], size)
    return TilePlan(
        height=height,
        width=width,
        overlap=overlap,
        tile_height=sides[0],
        tile_width=sides[1],
        padded_height=padded_height,
        padded_width=padded_width,
        rows=len(vertical),
        columns=len(horizontal),
        align=align,
        boxes=_grid(vertical, horizontal),
        cores=_grid(_cores(vertical), _cores(horizontal)),
        size=size,
    )


def smallest_tile(*, overlap: int, size: SizeRequirements, minimum_tile: int = 32) -> int:
    """The least ``tile`` that ``plan_tiles`` accepts for a picture larger than it: the floor when memory runs out."""
    if size.fixed:
        return max(size.fixed, 2 * overlap + 1)
    least = max(minimum_tile, size.minimum, 2 * overlap + _LEAST_CORE)
    return _round_up(least, size.multiple_of)


def padded_size(height: int, width: int, size: SizeRequirements) -> tuple[int, int]:
    """The least (height, width) at or above the given one that meets ``size``."""
    if size.fixed:
        return size.fixed, size.fixed
    padded = [_round_up(max(side, size.minimum), size.multiple_of) for side in (height, width)]
    return (max(padded), max(padded)) if size.square else (padded[0], padded[1])


def pad_tile(tile: Array, plan: TilePlan) -> Array:
    """Mirror ``tile`` (h, w, C) below and to the right up to its padded size; the tile itself when it fits.

    The mirror does not repeat the edge pixel, and goes back and forth where the padding is longer than the tile.
    """
    height, width = tile.shape[:2]
    padded = padded_size(height, width, plan.size)
    if padded == (height, width):
        return tile
    return tile[_mirror(height, padded[0])][:, _mirror(width, padded[1])]


def unpad(out: Array, box: Box, scale: int) -> Array:
    """Cut the padding off a network's answer: the view (box.height * scale, box.width * scale, C)."""
    return out[: box.height * scale, : box.width * scale]


def _limit(longest: int, *, tile: int | None, size: SizeRequirements) -> int:
    """The longest side a tile may have, a multiple where one is demanded."""
    if size.fixed and tile is None and longest > size.fixed:
        raise ParameterError(
            f"this model takes pictures of {size.fixed} pixels a side and no larger",
            hint="leave --tile at auto",
        )
    if size.fixed:
        return size.fixed
    if tile is None or tile >= longest:
        return longest
    return tile // size.multiple_of * size.multiple_of


def _shrunk(length: int, tile: int, overlap: int, size: SizeRequirements, minimum_tile: int) -> int:
    """The smallest side that covers ``length`` with as many tiles as ``tile`` needs."""
    if tile >= length:
        return length
    count = -(-(length - 2 * overlap) // (tile - 2 * overlap))
    least = 2 * overlap - (-(length - 2 * overlap) // count)
    return min(tile, _round_up(max(least, minimum_tile, size.minimum), size.multiple_of))


def _spans(length: int, side: int, overlap: int, align: int) -> list[tuple[int, int]]:
    """(start, end) of the tiles along one axis."""
    if side >= length:
        return [(0, length)]
    step = (side - 2 * overlap) // align * align
    count = 1 - (-(length - side) // step)
    if align > 1:
        return [(start, min(start + side, length)) for start in range(0, count * step, step)]
    starts = [min(index * step, length - side) for index in range(count)]
    return [(start, start + side) for start in starts]


def _cores(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(start, end) of what each tile owns: neighbours part in the middle of what they share."""
    middles = [(end + start) // 2 for (_, end), (start, _) in pairwise(spans)]
    cuts = [0, *middles, spans[-1][1]]
    return list(pairwise(cuts))


def _grid(vertical: list[tuple[int, int]], horizontal: list[tuple[int, int]]) -> tuple[Box, ...]:
    return tuple(Box(top, left, bottom - top, right - left) for top, bottom in vertical for left, right in horizontal)


def _mirror(length: int, padded: int) -> NDArray[np.intp]:
    """Indices 0, 1, .. length-1, length-2, .. 1, 0, 1, .. of ``padded`` entries."""
    if length == 1:
        return np.zeros(padded, np.intp)
    period = 2 * (length - 1)
    index = np.arange(padded) % period
    return np.minimum(index, period - index)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
