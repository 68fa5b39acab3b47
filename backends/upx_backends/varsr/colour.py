"""Colour fixes: the result takes over the colours of the picture that it was made from.

All pictures here are float32, (3, H, W), 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

FIXES = ("adain", "wavelet", "none")
VARIANCE_EPS = 1e-5
LEVELS = 5
# [1, 2, 1] by [1, 2, 1].
BINOMIAL = (0.25, 0.5, 0.25)


def fixed(result: Tensor, reference: Tensor, fix: str) -> Tensor:
    """``result`` with the colours of ``reference``, which has its size; clamped."""
    if fix == "adain":
        return adain(result, reference).clamp(0, 1)
    if fix == "wavelet":
        high, _ = split(result)
        _, low = split(reference)
        return (high + low).clamp(0, 1)
    return result


def adain(result: Tensor, reference: Tensor) -> Tensor:
    """Each channel gets the mean and the spread of the reference's.

    Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization" (2017).
    """
    mean, spread = _statistics(result)
    wanted_mean, wanted_spread = _statistics(reference)
    return (result - mean) / spread * wanted_spread + wanted_mean


def _statistics(picture: Tensor) -> tuple[Tensor, Tensor]:
    flat = picture.flatten(1)
    mean = flat.mean(dim=1)[:, None, None]
    spread = (flat.var(dim=1) + VARIANCE_EPS).sqrt()[:, None, None]
    return mean, spread


def split(picture: Tensor) -> tuple[Tensor, Tensor]:
    """High and low frequencies: five blurs, each twice as wide as the one before (a trous wavelet)."""
    line = picture.new_tensor(BINOMIAL)
    kernel = torch.outer(line, line).expand(3, 1, 3, 3)
    high, low = torch.zeros_like(picture), picture
    for level in range(LEVELS):
        wide = 2**level
        padded = functional.pad(low[None], (wide, wide, wide, wide), mode="replicate")
        blurred = functional.conv2d(padded, kernel, groups=3, dilation=wide)[0]
        high, low = high + (low - blurred), blurred
    return high, low
