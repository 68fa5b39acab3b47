"""What a network demands of a picture's size, how pictures are cut, what a worker can do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Stitch: TypeAlias = Literal["none", "crop", "feather"]


@dataclass(frozen=True, slots=True)
class SizeRequirements:
    """What a network demands of its input's height and width, in pixels (spandrel's words and meaning).

    ``minimum``: the least side; ``multiple_of``: each side is a multiple of it; ``square``: height equals
    width; ``fixed``: exactly this side, 0 for any.
    """

    minimum: int = 1
    multiple_of: int = 1
    square: bool = False
    fixed: int = 0


@dataclass(frozen=True, slots=True)
class TilingSpec:
    """How a model's pictures are cut: ``tile`` and ``overlap`` in input pixels.

    ``align`` > 1 asks for tiles that start at its multiples.
    """

    tile: int = 256
    overlap: int = 24
    stitch: Stitch = "crop"
    align: int = 1
    minimum_tile: int = 32


@dataclass(frozen=True, slots=True)
class ColourSpec:
    """How a result gets its picture's colours back, once, after stitching.

    ``parameter``: the one whose value names the method ("adain", "wavelet" or "none"); workers are always told
    "none". ``adain``: whether mean and spread are those of the input or of the enlarged input. ``truncate``: integers
    are cut off instead of rounded.
    """

    parameter: str
    adain: Literal["input", "enlarged"] = "enlarged"
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column to the right."""
        return self.left + self.width

    def scaled(self, scale: int) -> Box:
        """The same rectangle in a picture ``scale`` times as large."""
        return Box(self.top * scale, self.left * scale, self.height * scale, self.width * scale)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How one picture of ``height`` x ``width`` is cut: everything in input pixels, made by ``tiling.plan_tiles``.

    ``boxes`` are the tiles, row-major, ``rows`` x ``columns`` of them; all are ``tile_height`` x ``tile_width``
    unless the last ones are smaller because tiles are aligned. ``cores`` are what each tile owns of the picture:
    they partition it, and each lies at least ``overlap`` away from its tile's inner edges. The model gets
    ``padded_height`` x ``padded_width``, which meets ``size``.
    """

    height: int
    width: int
    overlap: int
    tile_height: int
    tile_width: int
    padded_height: int
    padded_width: int
    rows: int
    columns: int
    # What tiles start at multiples of: 1 where they are too small for what the model asks for.
    align: int
    boxes: tuple[Box, ...]
    cores: tuple[Box, ...]
    size: SizeRequirements


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a worker says of itself once a model is loaded (``Loaded``)."""

    scale: int
    size: SizeRequirements
    device: str
    device_name: str = ""
    precision: str = "fp32"
    # dtypes a tile may be sent in and asked back in.
    dtypes: tuple[str, ...] = ("uint8", "float32")
    # SHA-256 of the weights' files, where the worker tells it.
    weights: str = ""
