"""How a picture of any size becomes one four times as large: through one square, or tile by tile in the latent.

One square, upstream's path for 512 pixels: the picture is resized to it, and what comes back is restored in place.
Tiles, upstream's path for large pictures: each is restored by itself, their latents are blended, and the whole is
decoded at once. In both a colour fix ends it. Pictures are uint8 (H, W, 3) here, tensors float32 (3, H, W) or (1, 3, H,
W), 0..1 unless said otherwise; P is the side of a tile's latent.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from upx_backends.varsr.colour import fixed
from upx_backends.varsr.config import DOWNSAMPLING
from upx_backends.varsr.loading import load_networks
from upx_backends.varsr.sampling import Sampling
from upx_backends.varsr.vqvae import to_unit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import Tensor

    from upx_backends.varsr.loading import Progress
    from upx_backends.varsr.model import VARSR
    from upx_backends.varsr.sampling import Draws
    from upx_backends.varsr.vqvae import VQVAE

SCALE = 4
MODES = ("auto", "512", "tiles")
# Of a tile's side, to each side's neighbour: upstream's 8 of 32.
OVERLAP = 4
# Of the bell that a tile's latent is weighted with, as a share of its side.
VARIANCE = 0.02


@dataclass(frozen=True)
class Knobs:
    """What a job may set. ``mode``: see ``enlarge``; ``colour_fix``: one of ``colour.FIXES``."""

    sampling: Sampling = field(default_factory=Sampling)
    mode: str = "auto"
    colour_fix: str = "adain"


@dataclass(frozen=True)
class Network:
    """What is resident. ``half``: autocast over float32 weights to that dtype."""

    var: VARSR
    vae: VQVAE
    device: torch.device
    half: torch.dtype | None = None

    def restored(self, picture: Tensor, knobs: Knobs, draws: Draws) -> Tensor:
        """(1, 3, 16 P, 16 P) -> its latent (1, channels, P, P), float32."""
        with self.precision():
            latent: Tensor = self.var(picture * 2 - 1, self.vae.quantize, knobs.sampling, draws)
        return numbers(latent.float(), "the latent")

    def precision(self) -> AbstractContextManager[Any]:
        """The context to compute in."""
        return torch.autocast(self.device.type, self.half) if self.half else contextlib.nullcontext()


def open_network(
    files: Mapping[str, str], device: torch.device, progress: Progress, half: torch.dtype | None = None
) -> Network:
    """The network of these files, ready to run; BadInputError as ``load_networks``."""
    network = Network(*load_networks(files, device, progress, half), device, half)
    with torch.inference_mode(), network.precision():
        network.var.prepare()
    return network


def numbers(values: Tensor, what: str) -> Tensor:
    """``values``, all of which are finite; FloatingPointError: integers made of others would be a picture as well."""
    if not bool(values.isfinite().all()):
        raise FloatingPointError(what)
    return values


def enlarge(network: Network, picture: NDArray[np.uint8], knobs: Knobs, draws: Draws) -> NDArray[Any]:
    """(H, W, 3) -> (4 H, 4 W, 3): float32 whose integers are its truncation, or uint8.

    "512": as one square, whatever its shape, and resized back. "tiles": tile by tile. "auto": a picture that fits into
    a quarter of the square is mirrored up to it, so that its shape stays; a larger one is done in tiles.
    """
    height, width = picture.shape[:2]
    side = network.var.config.pixels // SCALE
    with torch.inference_mode():
        if knobs.mode == "512":
            return _resized_back(one_square(network, picture, knobs, draws), height, width)
        if knobs.mode == "tiles" or max(height, width) > side:
            return _tiled(network, picture, knobs, draws)
        padded = np.pad(picture, ((0, side - height), (0, side - width), (0, 0)), mode="reflect")
        return one_square(network, padded, knobs, draws, shown=(SCALE * height, SCALE * width))


def one_square(
    network: Network, picture: NDArray[np.uint8], knobs: Knobs, draws: Draws, *, shown: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Upstream's path for 512 pixels: (H, W, 3) -> (16 P, 16 P, 3), its fixed colours not yet truncated.

    ``shown``: rows and columns of the result that are no padding, all by default; only they are given and coloured.
    """
    side = network.var.config.pixels
    large = resized(picture, side, side)
    latent = network.restored(planes(large, network.device)[None], knobs, draws)
    with network.precision():
        result = to_unit(network.vae(latent))[0]
    rows, columns = shown or (side, side)
    return _coloured(levels(result)[:rows, :columns], large[:rows, :columns], knobs)


def _resized_back(square: NDArray[np.float32], height: int, width: int) -> NDArray[Any]:
    wanted = (SCALE * height, SCALE * width)
    return square if square.shape[:2] == wanted else resized((square * np.float32(255)).astype(np.uint8), *wanted)


def _tiled(network: Network, picture: NDArray[np.uint8], knobs: Knobs, draws: Draws) -> NDArray[np.float32]:
    """Upstream's path for large pictures: (H, W, 3) -> (4 H, 4 W, 3), its fixed colours not yet truncated."""
    height, width = picture.shape[:2]
    latent = blended(network, picture, knobs, draws)
    # In float32, as a whole: a group's norm is over all of the picture.
    whole = levels(to_unit(network.vae(latent))[0])
    wanted = (SCALE * height, SCALE * width)
    return _coloured(resized(whole, *wanted), resized(picture, *wanted), knobs)


def blended(network: Network, picture: NDArray[np.uint8], knobs: Knobs, draws: Draws) -> Tensor:
    """The latent of the whole picture, (1, channels, h, w): each place the mean of its tiles, weighted."""
    tile = network.var.config.side
    rows, columns = (max(SCALE * math.ceil(each / DOWNSAMPLING), tile) for each in picture.shape[:2])
    large = planes(resized(picture, rows * DOWNSAMPLING, columns * DOWNSAMPLING), network.device)[None]
    weights = tile_weights(tile).to(network.device)
    total = torch.zeros(1, network.var.config.latent, rows, columns, device=network.device)
    shares = torch.zeros(rows, columns, device=network.device)
    for top in starts(rows, tile):
        for left in starts(columns, tile):
            place = (..., slice(top, top + tile), slice(left, left + tile))
            y, x = top * DOWNSAMPLING, left * DOWNSAMPLING
            seen = large[:, :, y : y + network.var.config.pixels, x : x + network.var.config.pixels]
            total[place] += network.restored(seen, knobs, draws) * weights
            shares[place] += weights
    return total / shares


def starts(length: int, tile: int) -> list[int]:
    """Where tiles begin, in the latent; the last is pushed back to the end."""
    step = tile - tile // OVERLAP
    count = 1 + math.ceil((length - tile) / step)
    return [min(index * step, length - tile) for index in range(count)]


def tile_weights(tile: int) -> Tensor:
    """(P, P), float64: a bell around the middle. Upstream's is half a place off in the rows, and so is this one."""
    place = torch.arange(tile, dtype=torch.float64)

    def bell(middle: float) -> Tensor:
        return torch.exp(-((place - middle) ** 2) / (tile**2 * VARIANCE)) / math.sqrt(VARIANCE * math.pi)

    return torch.outer(bell(tile / 2), bell((tile - 1) / 2))


def _coloured(result: NDArray[np.uint8], reference: NDArray[np.uint8], knobs: Knobs) -> NDArray[np.float32]:
    """8-bit levels in, as upstream has it; (H, W, 3), float32 out."""
    done = fixed(planes(result), planes(reference), knobs.colour_fix)
    return done.permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)


def resized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """By Pillow's bicubic filter, antialiased, in 8 bits: what the network was trained with."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


def planes(picture: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().to(device).float() / 255


def levels(result: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) float32 -> (H, W, 3) uint8, rounded half to even; FloatingPointError where one is no number."""
    return (numbers(result, "the picture") * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
