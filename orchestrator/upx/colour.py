"""Colour fixes: a result takes over the colours of the picture that it was made from; pure numpy.

``adain`` shifts and scales each channel so that mean and spread are the source's (Huang and Belongie, "Arbitrary Style
Transfer in Real-time with Adaptive Instance Normalization", 2017). ``wavelet`` keeps the result's detail and takes the
source's low frequencies (the à trous wavelet of StableSR's colour fix: five binomial passes). Both run once, over the
whole stitched picture: a fix for each tile would leave patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

PASSES = 5
# Rows and columns that a pixel's low frequencies depend on, to each side: the dilations' sum.
REACH = 2**PASSES - 1
# Keeps a channel without any spread from being divided by zero.
EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of each channel, (3,) float64, of values 0..1: ``std`` is the root of the unbiased variance plus EPSILON."""

    mean: Array
    std: Array


def statistics(bands: Iterable[Array]) -> Statistics:
    """Of a whole picture, given as bands (n, W, 3) of uint8 or of float32 0..1."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for band in bands:
        values = to_unit(band).astype(np.float64).reshape(-1, 3)
        count += len(values)
        total += values.sum(0)
        squares += np.square(values).sum(0)
    mean = total / count
    # Rounding may leave less than nothing of a channel that is all one value.
    variance = np.maximum(squares - count * np.square(mean), 0.0) / max(count - 1, 1)
    return Statistics(mean, np.sqrt(variance + EPSILON))


def adain(band: Array, own: Statistics, source: Statistics) -> Array:
    """The band (n, W, 3), float32, neither clipped nor rounded, with the source's mean and spread."""
    gain = (source.std / own.std).astype(np.float32)
    shift = (source.mean - own.mean * source.std / own.std).astype(np.float32)
    return to_unit(band) * gain + shift


def wavelet(band: Array, source: Array) -> Array:
    """The detail of ``band`` over the low frequencies of ``source``, both (n, W, 3) and of one place; float32."""
    mine = to_unit(band)
    return mine - low_pass(mine) + low_pass(to_unit(source))


def low_pass(values: Array) -> Array:
    """What five passes of the kernel (1 2 1)/4 along both axes leave, their steps doubling; edges are repeated."""
    for step in (2**number for number in range(PASSES)):
        for axis in (0, 1):
            values = _binomial(values, step, axis)
    return values


def to_unit(band: Array) -> Array:
    """float32 0..1 of either dtype."""
    return band.astype(np.float32) / np.float32(255) if band.dtype == np.uint8 else band.astype(np.float32, copy=False)


def from_unit(values: Array, dtype: np.dtype[Any], *, truncate: bool) -> Array:
    """Clipped to 0..1; as uint8 rounded half to even, or cut off where the model does so."""
    clipped = np.clip(values, 0, 1)
    if dtype != np.uint8:
        return clipped
    levels = clipped * np.float32(255)
    return (levels if truncate else np.rint(levels)).astype(np.uint8)


def _binomial(values: Array, step: int, axis: int) -> Array:
    count: int = values.shape[axis]
    index = np.arange(count)
    before = np.take(values, np.maximum(index - step, 0), axis)
    before += np.take(values, np.minimum(index + step, count - 1), axis)
    before += 2 * values
    before *= np.float32(0.25)
    return before
