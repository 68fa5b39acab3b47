"""Applies a network tile by tile and blends what it gives: the transformer as upstream does, the VAE in our own way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from upx_backends.tsdsr.sizes import PATCH, VAE_SCALE, at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Network = Callable[[Tensor], Tensor]

# Variance of the weights of a tile, in units of its side.
VARIANCE = 0.01


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side: every ``tile - overlap``, the last one moved back to end where the side ends."""
    if tile >= length:
        return [0]
    step = tile - overlap
    count = 1 + math.ceil((length - tile) / step)
    return [min(index * step, length - tile) for index in range(count)]


def gaussian_weights(tile: int) -> Tensor:
    """(T, T), float64. The middle is not the same on both axes: T/2 down, (T-1)/2 across. It shows in the result."""

    def along(middle: float) -> Tensor:
        distance = (torch.arange(tile, dtype=torch.float64) - middle) / tile
        return torch.exp(-(distance**2) / (2 * VARIANCE)) / math.sqrt(2 * math.pi * VARIANCE)

    return torch.outer(along(tile / 2), along((tile - 1) / 2))


def ramp_weights(height: int, width: int, overlap: int) -> Tensor:
    """(H, W), float64: 1 inside, falling to 0 over ``overlap`` pixels at each edge."""

    def along(length: int) -> Tensor:
        place = torch.arange(length, dtype=torch.float64) + 0.5
        return torch.minimum(place, length - place).clamp(max=overlap) / overlap

    return torch.outer(along(height), along(width))


def predict(network: Network, latent: Tensor, *, tile: int, overlap: int, longest: int) -> Tensor:
    """The transformer over a latent (1, C, H, W), of the same shape: in one call, or in tiles blended by Gaussians.

    Every tile sees the middle of the positional table, as if it were the whole. The tile shrinks to the shorter side,
    the overlap does not; only one that would leave no step (upstream never ends then) becomes half a tile.
    """
    height, width = latent.shape[-2:]
    if at_once(height, width, tile=tile, longest=longest):
        return network(latent)
    tile = min(tile, height, width)
    tile -= tile % PATCH
    overlap = overlap if overlap < tile else tile // 2
    return _blended(network, latent, tile=(tile, tile), overlap=overlap, weights=gaussian_weights(tile))


def encode(network: Network, pixels: Tensor, *, tile: int) -> Tensor:
    """The VAE's encoder over (1, 3, H, W) to (1, 2 C, H/8, W/8); in tiles of ``tile`` pixels where it is not 0."""
    sides = _sides(pixels, tile // VAE_SCALE * VAE_SCALE)
    if sides is None:
        return network(pixels)
    overlap = tile // 4 // VAE_SCALE * VAE_SCALE
    small = [side // VAE_SCALE for side in sides]
    return _blended(
        network, pixels, tile=sides, overlap=overlap, weights=ramp_weights(*small, overlap // VAE_SCALE), down=VAE_SCALE
    )


def decode(network: Network, latent: Tensor, *, tile: int) -> Tensor:
    """The VAE's decoder over (1, C, H, W) to (1, 3, 8 H, 8 W); in tiles of ``tile`` output pixels where it is not 0."""
    sides = _sides(latent, tile // VAE_SCALE)
    if sides is None:
        return network(latent)
    overlap = tile // 4 // VAE_SCALE
    large = [side * VAE_SCALE for side in sides]
    return _blended(
        network, latent, tile=sides, overlap=overlap, weights=ramp_weights(*large, overlap * VAE_SCALE), up=VAE_SCALE
    )


def _sides(whole: Tensor, tile: int) -> tuple[int, int] | None:
    """(H, W) of a tile of it; None where one call takes all."""
    height, width = whole.shape[-2:]
    return (min(tile, height), min(tile, width)) if 0 < tile < max(height, width) else None


def _blended(
    network: Network, whole: Tensor, *, tile: tuple[int, int], overlap: int, weights: Tensor, up: int = 1, down: int = 1
) -> Tensor:
    """The mean of the network's results by ``weights``, float64, summed in float32; sides change by up / down."""
    weights = weights.to(whole.device)
    height, width = (side * up // down for side in whole.shape[-2:])
    share = torch.zeros(height, width, device=whole.device)
    total: Tensor | None = None
    for top in starts(whole.shape[-2], tile[0], overlap):
        for left in starts(whole.shape[-1], tile[1], overlap):
            part = network(whole[..., top : top + tile[0], left : left + tile[1]])
            if total is None:
                total = torch.zeros(*part.shape[:-2], height, width, device=whole.device)
            rows = slice(top * up // down, (top + tile[0]) * up // down)
            columns = slice(left * up // down, (left + tile[1]) * up // down)
            total[..., rows, columns] += part * weights
            share[rows, columns] += weights
    assert total is not None  # noqa: S101  there is always a first tile
    return (total / share).to(whole.dtype)
