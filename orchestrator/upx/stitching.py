"""Put upscaled tiles together into bands of finished rows, in order from the top; pure numpy.

Only rows that are not complete are held. ``crop`` copies what each tile owns, ``feather`` blends what neighbours
share with cos² weights that sum to 1, ``none`` passes a single tile on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from upx.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from upx.specs import Stitch, TilePlan

Array: TypeAlias = "NDArray[Any]"
Band: TypeAlias = "tuple[int, NDArray[Any]]"


class Stitcher:
    """Collects the tiles of one job; they may arrive in any order.

    ``dtype`` is uint8 or float32 0..1, the bands'; tiles come in either. What was blended is rounded once, half to
    even. The result does not depend on the order of arrival.
    """

    def __init__(self, plan: TilePlan, scale: int, channels: int, dtype: DTypeLike, mode: Stitch) -> None:
        self._plan = plan
        self._scale = scale
        self._channels = channels
        self._seen: set[int] = set()
        self._rows: _Single | _Crop | _Feather
        if len(plan.boxes) == 1:
            self._rows = _Single(np.dtype(dtype))
        elif mode == "feather":
            self._rows = _Feather(plan, scale, channels, np.dtype(dtype))
        elif mode == "crop":
            self._rows = _Crop(plan, scale, channels, np.dtype(dtype))
        else:
            raise ValueError(f"stitching {mode!r} takes one tile, not {len(plan.boxes)}")

    def add(self, index: int, tile_out: Array) -> list[Band]:
        """Take tile ``index``, (h * scale, w * scale, C) without padding; give the bands that it completes.

        A band is (first row, array (rows, width * scale, C)) and belongs to the caller. With a single tile it may be
        a view of ``tile_out``; otherwise no reference to ``tile_out`` is kept. ModelError: the tile has another
        shape, or holds NaN or infinity.
        """
        self._check(index, tile_out)
        self._seen.add(index)
        return self._rows.add(index, tile_out)

    def finish(self) -> None:
        """Assert that every row is out; ValueError names the tiles that never came."""
        missing = [index for index in range(len(self._plan.boxes)) if index not in self._seen]
        if missing:
            raise ValueError(f"{len(missing)} tiles are missing, the first is {missing[0]}")

    def _check(self, index: int, tile: Array) -> None:
        if index in self._seen:
            raise ValueError(f"tile {index} came twice")
        box = self._plan.boxes[index].scaled(self._scale)
        if tile.shape != (box.height, box.width, self._channels):
            wanted = (box.height, box.width, self._channels)
            raise ModelError(
                f"the model answered tile {index} with shape {tile.shape} instead of {wanted}",
                hint="this is a fault of the backend: report it to its author",
            )
        if tile.dtype.kind == "f" and not np.isfinite(tile).all():
            raise ModelError(
                f"the model answered tile {index} with values that are not numbers",
                hint="try --precision fp32, or another --tile",
            )


class _Single:
    """One tile is the whole picture."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def add(self, index: int, tile: Array) -> list[Band]:
        return [(index, as_dtype(tile, self._dtype))]


class _Crop:
    """Copies cores into the band of one row of tiles; cores of later rows wait, smaller than a second band."""

    def __init__(self, plan: TilePlan, scale: int, channels: int, dtype: np.dtype[Any]) -> None:
        self._plan = plan
        self._scale = scale
        self._channels = channels
        self._dtype = dtype
        self._band: Array | None = None
        self._missing = plan.columns
        self._row = 0
        self._early: dict[int, list[tuple[int, Array]]] = {}

    def add(self, index: int, tile: Array) -> list[Band]:
        box, core = self._plan.boxes[index].scaled(self._scale), self._plan.cores[index].scaled(self._scale)
        inner = tile[core.top - box.top : core.bottom - box.top, core.left - box.left : core.right - box.left]
        row = index // self._plan.columns
        if row > self._row:
            self._early.setdefault(row, []).append((index, inner.copy()))
            return []
        done = self._place_early() + self._place(index, inner)
        # What waits for the next row goes into its band only with the next tile, when the caller has let go of this
        # one; unless it is the whole row, and no tile may follow.
        while len(self._early.get(self._row, ())) == self._plan.columns:
            done += self._place_early()
        return done

    def _place_early(self) -> list[Band]:
        done: list[Band] = []
        for index, inner in self._early.pop(self._row, ()):
            done += self._place(index, inner)
        return done

    def _place(self, index: int, inner: Array) -> list[Band]:
        core = self._plan.cores[index].scaled(self._scale)
        if self._band is None:
            self._band = np.empty((core.height, self._plan.width * self._scale, self._channels), self._dtype)
        self._band[:, core.left : core.right] = as_dtype(inner, self._dtype)
        self._missing -= 1
        if self._missing:
            return []
        band, self._band = self._band, None
        self._missing = self._plan.columns
        self._row += 1
        return [(core.top, band)]


class _Feather:
    """Blends tiles strictly in their own order, because float sums depend on it; early ones wait as copies."""

    def __init__(self, plan: TilePlan, scale: int, channels: int, dtype: np.dtype[Any]) -> None:
        self._plan = plan
        self._scale = scale
        self._dtype = dtype
        vertical = [(box.top, box.bottom) for box in plan.boxes[:: plan.columns]]
        horizontal = [(box.left, box.right) for box in plan.boxes[: plan.columns]]
        self._down = feather_weights(vertical, scale)
        self._across = feather_weights(horizontal, scale)
        self._sums = np.zeros((plan.tile_height * scale, plan.width * scale, channels), np.float32)
        self._top = 0
        self._next = 0
        self._early: dict[int, Array] = {}

    def add(self, index: int, tile: Array) -> list[Band]:
        if index != self._next:
            self._early[index] = tile.copy()
            return []
        done = self._blend(tile)
        while self._next in self._early:
            done += self._blend(self._early.pop(self._next))
        return done

    def _blend(self, tile: Array) -> list[Band]:
        row, column = divmod(self._next, self._plan.columns)
        box = self._plan.boxes[self._next].scaled(self._scale)
        weighted = as_dtype(tile, np.dtype(np.float32)) * self._across[column][:, None]
        weighted *= self._down[row][:, None, None]
        self._sums[box.top - self._top : box.bottom - self._top, box.left : box.right] += weighted
        self._next += 1
        return [self._emit(row)] if column == self._plan.columns - 1 else []

    def _emit(self, row: int) -> Band:
        """The rows that no tile below touches; the others move up."""
        last = row == self._plan.rows - 1
        below = self._plan.height if last else self._plan.boxes[(row + 1) * self._plan.columns].top
        top, count = self._top, below * self._scale - self._top
        band = as_dtype(self._sums[:count], self._dtype)
        if band.base is not None:
            band = band.copy()
        kept = self._sums[count:].copy()
        self._sums[: len(kept)] = kept
        self._sums[len(kept) :] = 0
        self._top += count
        return top, band


def feather_weights(spans: Sequence[tuple[int, int]], scale: int) -> list[NDArray[np.float32]]:
    """Weights of the tiles along one axis, one per output pixel of each; at every pixel they sum to 1.

    ``spans`` are (start, end) in input pixels. Over what two neighbours share, one falls as cos² and the other rises
    as sin² (Hann cross-fade); where three tiles meet, the division by the sum restores 1.
    """
    weights = [np.ones((end - start) * scale) for start, end in spans]
    for index in range(len(spans) - 1):
        shared = (spans[index][1] - spans[index + 1][0]) * scale
        rising = np.sin((np.arange(shared) + 0.5) * (math.pi / 2 / max(shared, 1))) ** 2
        weights[index][len(weights[index]) - shared :] *= rising[::-1]
        weights[index + 1][:shared] *= rising
    sums = np.zeros(spans[-1][1] * scale)
    for (start, end), weight in zip(spans, weights, strict=True):
        sums[start * scale : end * scale] += weight
    return [
        (weight / sums[start * scale : end * scale]).astype(np.float32)
        for (start, end), weight in zip(spans, weights, strict=True)
    ]


def as_dtype(array: Array, dtype: np.dtype[Any]) -> Array:
    """``array`` as uint8 0..255 or float32 0..1, clipped and rounded half to even; itself when it is that already."""
    if array.dtype == dtype:
        return array
    if dtype == np.float32 and array.dtype == np.uint8:
        return array * np.float32(1 / 255)
    if dtype == np.uint8 and array.dtype == np.float32:
        levels = array * np.float32(255)
        np.rint(levels, out=levels)
        np.clip(levels, 0, 255, out=levels)
        return levels.astype(np.uint8)
    raise ModelError(f"the model answered with {array.dtype} where {dtype} was asked for")
