"""How a picture's channels become the three that a model takes, and how they come back: grey, alpha, dtype.

Colour is premultiplied before the model, so that what lies invisible under transparent pixels cannot bleed out, and
restored afterwards. Alpha is enlarged by bicubic interpolation: networks ring on its hard edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from upx.specs import Box
from upx.stitching import as_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx.media.picture import Picture

Array: TypeAlias = "NDArray[Any]"
Mode: TypeAlias = Literal["L", "LA", "RGB", "RGBA"]

_FLOAT = np.dtype(np.float32)
# Rec. 601, in 65536ths as Pillow's "L" has them, so that grey equals what a viewer would make of the result.
_LUMA = (19595, 38470, 7471)
# Bicubic reaches two source pixels; one more costs nothing.
_REACH = 3
# Source rows restored at a time: bounds the float copies.
_SOURCE_ROWS = 16


class Channels:
    """One job's way in and out: ``tile`` gives what the model gets, ``finish`` makes file rows of its answer."""

    def __init__(self, picture: Picture, scale: int) -> None:
        self._picture = picture
        self.scale = scale
        self._alpha_varies = picture.has_alpha and picture.alpha_constant is None

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """What tiles and stitched bands are: float32 where alpha varies, else the picture's own."""
        return "float32" if self._alpha_varies else self._picture.dtype

    @property
    def mode(self) -> Mode:
        """What ``finish`` gives."""
        grey = self._picture.mode == "L"
        if self._picture.has_alpha:
            return "LA" if grey else "RGBA"
        return "L" if grey else "RGB"

    def tile(self, box: Box) -> Array:
        """What the model gets of ``box``: (h, w, 3) in ``dtype``, premultiplied where alpha varies."""
        colour = self._picture.crop(box)
        return premultiply(colour, self._picture.alpha(box)) if self._alpha_varies else colour

    def finish(self, top: int, band: Array) -> Array:
        """Rows of the result from stitched rows (n, width * scale, 3) in ``dtype``, the first being row ``top``.

        Gives (n, width * scale, C), C as ``mode`` has channels, in the picture's dtype; ``band`` itself for RGB.
        """
        if self.mode == "RGB":
            return band
        out = np.empty((*band.shape[:2], len(self.mode)), self._picture.dtype)
        step = _SOURCE_ROWS * self.scale
        for start in range(0, len(band), step):
            part = band[start : start + step]
            self._finish_rows(top + start, part, out[start : start + step])
        return out

    def _finish_rows(self, top: int, part: Array, out: Array) -> None:
        if self._alpha_varies:
            alpha = enlarged_alpha(self._picture, self.scale, top, top + len(part))
            colour = self._restored(top, part, alpha)
        else:
            alpha, colour = self._picture.alpha_constant, part
        if self._picture.mode == "L":
            out[..., 0] = luma(colour)
        else:
            out[..., :3] = colour
        if self._picture.has_alpha:
            out[..., -1] = alpha

    def _restored(self, top: int, premultiplied: Array, alpha: Array) -> Array:
        """Undo ``premultiply``, in the picture's dtype.

        Model and bicubic alpha do not agree to the pixel at an edge, and the quotient would fringe it. Up to two source
        pixels from what is not opaque, where models ring, a colour stays within the range of the visible ones around.
        """
        share = as_dtype(alpha, _FLOAT)[..., None]
        colour = np.divide(premultiplied, share, out=np.zeros_like(premultiplied), where=share > 0)
        low, high = self._colour_range(top, len(premultiplied))
        np.clip(colour, low, high, out=colour)
        return as_dtype(colour, np.dtype(self._picture.dtype))

    def _colour_range(self, top: int, rows: int) -> tuple[Array, Array]:
        """Least and greatest colour per output pixel, (rows, width * scale, 3) float32; 0 and 1 where all is opaque."""
        scale, picture = self.scale, self._picture
        first, last = top // scale, -(-(top + rows) // scale)
        above, below = max(first - 2, 0), min(last + 2, picture.height)
        box = Box(above, 0, below - above, picture.width)
        colour, alpha = as_dtype(picture.crop(box), _FLOAT), as_dtype(picture.alpha(box), _FLOAT)[..., None]
        low = _around(np.where(alpha > 0, colour, np.float32(np.inf)), np.minimum)
        high = _around(np.where(alpha > 0, colour, np.float32(-np.inf)), np.maximum)
        # Where two negative lobes of bicubic meet, a trace of alpha lies one pixel further out.
        low, high = np.where(high < low, (_around(low, np.minimum), _around(high, np.maximum)), (low, high))
        free = (_around(_around(alpha, np.minimum), np.minimum) == 1) | (high < low)
        low, high = np.where(free, np.float32(0), low), np.where(free, np.float32(1), high)
        own = slice(first - above, last - above)
        shown = slice(top - first * scale, top - first * scale + rows)
        return (
            low[own].repeat(scale, 0).repeat(scale, 1)[shown],
            high[own].repeat(scale, 0).repeat(scale, 1)[shown],
        )


def premultiply(colour: Array, alpha: Array) -> Array:
    """(h, w, 3) colours times (h, w) alpha, each uint8 or float32 0..1; gives float32 0..1."""
    return as_dtype(colour, _FLOAT) * as_dtype(alpha, _FLOAT)[..., None]


def luma(rgb: Array) -> Array:
    """Grey (h, w) of (h, w, 3), in its own dtype; exactly the value where the three are equal."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    if rgb.dtype == np.uint8:
        total = red.astype(np.uint32) * _LUMA[0] + green.astype(np.uint32) * _LUMA[1]
        total += blue.astype(np.uint32) * _LUMA[2] + 0x8000
        return (total >> 16).astype(np.uint8)
    weights = [np.float32(weight / 65536) for weight in _LUMA]
    return red * weights[0] + green * weights[1] + blue * weights[2]


def enlarged_alpha(picture: Picture, scale: int, top: int, bottom: int) -> Array:
    """Rows ``top`` to ``bottom`` of the picture's alpha enlarged by Pillow's bicubic: (rows, width * scale).

    Equal to the same rows of the whole plane enlarged at once: the resize sees the neighbours beyond its box, and goes
    across before it goes down whatever the band's shape (Pillow picks the cheaper order, and rounds in between).
    """
    first, last = top // scale, -(-bottom // scale)
    above, below = max(first - _REACH, 0), min(last + _REACH, picture.height)
    plane = Image.fromarray(picture.alpha(Box(above, 0, below - above, picture.width)))
    width, bicubic = picture.width * scale, Image.Resampling.BICUBIC
    across = plane.resize((width, plane.height), bicubic)
    box = (0, first - above, width, last - above)
    rows = np.asarray(across.resize((width, (last - first) * scale), bicubic, box=box))
    return rows.clip(0, 1 if rows.dtype == np.float32 else 255)[top - first * scale : bottom - first * scale]


def flattened(rows: Array) -> Array:
    """LA or RGBA rows (n, w, 2 or 4), uint8, over white: (n, w, 1 or 3)."""
    colour, alpha = rows[..., :-1].astype(np.uint32), rows[..., -1:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _around(plane: Array, pick: np.ufunc) -> Array:
    """The least or greatest (``pick``) of each pixel's 3 x 3 neighbourhood, (h, w, C)."""
    for axis in (0, 1):
        forward, backward = plane.copy(), plane
        lower = [slice(None)] * 3
        upper = [slice(None)] * 3
        lower[axis], upper[axis] = slice(1, None), slice(None, -1)
        pick(forward[tuple(lower)], backward[tuple(upper)], out=forward[tuple(lower)])
        pick(forward[tuple(upper)], backward[tuple(lower)], out=forward[tuple(upper)])
        plane = forward
    return plane
