"""Bring whatever Pillow decoded to 8-bit L, LA, RGB or RGBA, and say in words what that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from upx.errors import UnsupportedPictureError

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT = ("L", "LA", "RGB", "RGBA")
_CONVERTED = {
    "1": ("L", "1-bit picture converted to 8-bit grey"),
    "P": ("RGB", "palette converted to RGB"),
    "PA": ("RGBA", "palette converted to RGBA"),
    "CMYK": ("RGB", "CMYK converted to RGB without colour management"),
    "YCbCr": ("RGB", "YCbCr converted to RGB"),
    "LAB": ("RGB", "Lab converted to RGB"),
    "HSV": ("RGB", "HSV converted to RGB"),
    "RGBX": ("RGB", "unused fourth channel dropped"),
    "RGBa": ("RGBA", "premultiplied colours converted to RGBA"),
    "La": ("LA", "premultiplied grey converted to grey with alpha"),
}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
# Rows converted at a time, so that a picture is not held a third time.
_BAND = 64
# ICC.1:2022, 7.2.6: the profile's colour space at byte 16.
_PROFILE_SPACES = {"L": b"GRAY", "RGB": b"RGB "}


def to_eight_bit(image: Image.Image, *, name: str) -> tuple[Image.Image, list[str]]:
    """A picture of mode L, LA, RGB or RGBA, ``image`` itself where it is one, and warnings for what changed.

    UnsupportedPictureError: integers or floats of 32 bits, or a mode unknown here.
    """
    keyed = "transparency" in image.info
    if image.mode in _KEPT and not keyed:
        return image, []
    if image.mode in _KEPT:
        target = "LA" if image.mode in {"L", "LA"} else "RGBA"
        return image.convert(target), ["transparent colour converted to an alpha channel"]
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(image), ["16-bit grey scaled to 8 bits"]
    if image.mode not in _CONVERTED:
        raise UnsupportedPictureError(
            f"{name}: pictures of mode {image.mode} are not handled",
            hint="convert it to 8-bit RGB or grey first",
        )
    target, warning = _CONVERTED[image.mode]
    if keyed and image.mode in {"P", "1"}:
        target, warning = "RGBA", f"{warning.rpartition(' to ')[0]} to RGBA"
    return image.convert(target), [warning]


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    """0..65535 to 0..255 by division, rounded: Pillow's own conversion clips at 255."""
    grey = Image.new("L", image.size)
    for top in range(0, image.height, _BAND):
        band = np.asarray(image.crop((0, top, image.width, min(top + _BAND, image.height)))).astype(np.uint32)
        grey.paste(Image.fromarray(((band + 128) // 257).astype(np.uint8)), (0, top))
    return grey


def fitting_profile(icc: bytes | None, mode: str) -> tuple[bytes | None, list[str]]:
    """The ICC profile if it describes colours of ``mode`` (RGB or L), else None and a warning."""
    if not icc:
        return None, []
    if icc[16:20] == _PROFILE_SPACES[mode]:
        return icc, []
    return None, ["colour profile dropped: it describes another kind of colours than the result has"]


def depth_warnings(header: bytes, bits: Sequence[int]) -> list[str]:
    """Warn of more than 8 bits a channel, which Pillow drops without a word.

    ``header``: the file's first 26 bytes (a PNG states its depth at byte 24, PNG 3rd edition 11.2.1); ``bits``: a
    TIFF's BitsPerSample. Grey of 16 bits is not meant: it keeps its depth until ``to_eight_bit``.
    """
    deep_png = header.startswith(b"\x89PNG") and header[24:26] in {b"\x10\x02", b"\x10\x04", b"\x10\x06"}
    deep_tiff = len(bits) > 1 and max(bits) > 8  # noqa: PLR2004 - bits of a byte
    return ["16 bits a channel read as 8"] if deep_png or deep_tiff else []
