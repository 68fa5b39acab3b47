"""Results that stay in memory: rows collected into an array, and an array made a Pillow picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from upx.media.orientation import EXIF_PREFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx.media.channels import Mode

Array: TypeAlias = "NDArray[Any]"


class ArrayEncoder:
    """An encoder whose file is ``array``: (height, width, channels), uint8 or float32 0..1."""

    streams = False
    warnings: tuple[str, ...] = ()

    def __init__(self, *, width: int, height: int, mode: Mode, dtype: Literal["uint8", "float32"]) -> None:
        self.array: Array = np.empty((height, width, len(mode)), dtype)
        self._written = 0

    def write(self, rows: Array) -> None:
        """The next rows, (n, width, channels)."""
        self.array[self._written : self._written + len(rows)] = rows
        self._written += len(rows)

    def close(self) -> None:
        """ValueError: rows are missing."""
        if self._written != len(self.array):
            raise ValueError(f"{self._written} of {len(self.array)} rows were written")

    def abort(self) -> None:
        """Forget what is held."""
        self.array = np.empty((0, 0, 0), self.array.dtype)


def like_input(array: Array, shape: tuple[int, ...] | None) -> Array:
    """``array`` (H, W, 1) as (H, W) where the input's ``shape`` had two axes."""
    return array[..., 0] if shape is not None and len(shape) == 2 else array  # noqa: PLR2004 - a plane


def to_image(array: Array, *, icc: bytes | None = None, exif: bytes | None = None) -> Image.Image:
    """A Pillow picture L, LA, RGB or RGBA of (H, W, 1 to 4) uint8, with its profile and EXIF in ``info``."""
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    if icc:
        image.info["icc_profile"] = icc
    if exif:
        image.info["exif"] = EXIF_PREFIX + exif
    return image
