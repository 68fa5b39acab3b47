"""Gives a result the colours of its input: wavelet and adain, in numpy and Pillow alone. Pictures are RGB, (H, W, 3).

uint8 pictures stand for 0..1 in steps of 1/255, float32 ones for themselves. Both fixes return float32, not clamped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[Any]
    Floats = NDArray[np.float32]

# The wavelet's passes: each looks this many pixels to every side, 31 together.
DILATIONS = (1, 2, 4, 8, 16)
EPSILON = 1e-5


def fix(target: Picture, source: Picture, method: str) -> Picture:
    """``target`` with the colours of ``source``, the input before it was enlarged; in ``target``'s dtype."""
    if method == "none":
        return target
    if method == "adain":
        fixed = adain(target, source)
    else:
        fixed = wavelet(target, resized(source, target.shape[0], target.shape[1]))
    return truncated(fixed) if target.dtype == np.uint8 else fixed


def adain(target: Picture, source: Picture) -> Floats:
    """Mean and deviation of each channel become those of ``source``, which may have another size."""
    (mean, deviation), (wanted_mean, wanted_deviation) = _statistics(target), _statistics(source)
    return (as_float(target) - mean) / deviation * wanted_deviation + wanted_mean


def wavelet(target: Picture, source: Picture) -> Floats:
    """The low frequencies become those of ``source``, which has the same size."""
    target = as_float(target)
    return target - low_pass(target) + low_pass(as_float(source))


def low_pass(picture: Floats) -> Floats:
    """Five passes of (1 2 1) x (1 2 1) / 16, dilated, each with its border repeated."""
    for dilation in DILATIONS:
        for axis in (0, 1):
            picture = _pass(picture, dilation, axis)
    return picture


def _pass(picture: Floats, dilation: int, axis: int) -> Floats:
    last = picture.shape[axis] - 1
    place = np.arange(last + 1)
    before = picture.take(np.maximum(place - dilation, 0), axis)
    after = picture.take(np.minimum(place + dilation, last), axis)
    return before * np.float32(0.25) + picture * np.float32(0.5) + after * np.float32(0.25)


def _statistics(picture: Picture) -> tuple[Floats, Floats]:
    """Mean and deviation per channel, (3,): the variance is the unbiased one; a single pixel has none."""
    pixels = as_float(picture).reshape(-1, picture.shape[2])
    mean = pixels.mean(axis=0, dtype=np.float64)
    variance = pixels.var(axis=0, ddof=min(1, len(pixels) - 1), dtype=np.float64)
    return mean.astype(np.float32), np.sqrt(variance + EPSILON).astype(np.float32)


def resized(picture: Picture, height: int, width: int) -> Picture:
    """Pillow's bicubic (a = -0.5, antialiased when it shrinks), in the picture's own dtype."""
    if picture.shape[:2] == (height, width):
        return picture
    if picture.dtype == np.uint8:
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    planes = [Image.fromarray(np.ascontiguousarray(picture[:, :, channel])) for channel in range(picture.shape[2])]
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes], axis=2)


def as_float(picture: Picture) -> Floats:
    """float32, 0..1."""
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    return picture.astype(np.float32, copy=False)


def truncated(picture: Floats) -> NDArray[np.uint8]:
    """0..1 to 8 bits as upstream does it: clamped, and cut instead of rounded."""
    return (np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)


def rounded(picture: Floats) -> NDArray[np.uint8]:
    """0..1 to the nearest of 8 bits: what an 8-bit input was before it came as floats."""
    return np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)
