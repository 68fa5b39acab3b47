"""One picture as the pipeline sees it: its facts, and crops of its pixels in the way it is shown.

Only one copy of the pixels is held, the decoder's or the caller's; every crop is a new array of its own size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from upx.media.orientation import AS_STORED, Orientation
from upx.specs import Box

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

# Pixels copied out of Pillow at a time: a crop is made of several copies on its way, this bounds the extra ones.
_BAND_PIXELS = 1 << 20


class Pixels(Protocol):
    """Where a picture's pixels come from."""

    def read(self, box: Box) -> Array:
        """The stored pixels of ``box``, (h, w, C) with C 1 to 4: L, LA, RGB, RGBA."""
        ...

    def close(self) -> None:
        """Let go of the pixels."""
        ...


@dataclass(frozen=True)
class Picture:
    """A decoded picture. Sizes and boxes are the shown ones, after EXIF orientation.

    ``mode``: its colours without alpha. ``exif``: the TIFF block with orientation 1. ``format``: png, jpeg, webp ...,
    None for what came from memory. ``shape``: of the array it came from, else None. ``warnings``: what was converted.
    """

    height: int
    width: int
    mode: Literal["RGB", "L"]
    has_alpha: bool
    dtype: Literal["uint8", "float32"]
    pixels: Pixels
    orientation: Orientation = AS_STORED
    icc: bytes | None = None
    exif: bytes | None = None
    format: str | None = None
    shape: tuple[int, ...] | None = None
    warnings: tuple[str, ...] = ()

    def crop(self, box: Box) -> Array:
        """The colours of ``box``: (h, w, 3) RGB, uint8 or float32 0..1, not premultiplied; grey is repeated."""
        channels = self._read(box)
        if self.mode == "L":
            return channels[..., :1].repeat(3, axis=2)
        return np.ascontiguousarray(channels[..., :3])

    def alpha(self, box: Box) -> Array:
        """The alpha of ``box``: (h, w), uint8 or float32 0..1; opaque where the picture has none."""
        if not self.has_alpha:
            return np.full((box.height, box.width), 255 if self.dtype == "uint8" else 1, self.dtype)
        return np.ascontiguousarray(self._read(box)[..., -1])

    @cached_property
    def alpha_constant(self) -> float | None:
        """The one alpha value of every pixel (0..255 or 0..1, as ``dtype``); None when alpha varies or is absent."""
        if not self.has_alpha:
            return None
        low, high = np.inf, -np.inf
        for band in bands(Box(0, 0, self.height, self.width)):
            alpha = self.alpha(band)
            low, high = min(low, alpha.min()), max(high, alpha.max())
            if low != high:
                return None
        return int(low) if self.dtype == "uint8" else float(low)

    def close(self) -> None:
        """Free the pixels that this picture owns; a caller's own picture or array stays as it is."""
        self.pixels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, box: Box) -> Array:
        stored = self.pixels.read(self.orientation.stored_box(box, self.height, self.width))
        return self.orientation.show(stored)


def bands(box: Box) -> Iterator[Box]:
    """``box`` in full-width pieces of about _BAND_PIXELS."""
    rows = max(1, _BAND_PIXELS // box.width)
    for top in range(box.top, box.bottom, rows):
        yield Box(top, box.left, min(rows, box.bottom - top), box.width)
