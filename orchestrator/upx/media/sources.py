"""Make a Picture of what is in memory: Pillow's pictures and arrays, neither copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from upx.errors import UnreadablePictureError, UnsupportedPictureError
from upx.media.conversion import fitting_profile, to_eight_bit
from upx.media.orientation import Orientation, exif_block, read_orientation, reset_orientation
from upx.media.picture import Picture, bands

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from upx.specs import Box

Array: TypeAlias = "NDArray[Any]"

# Float results of other programs overshoot by rounding; more than this is another range.
_FLOAT_SLACK = 1 / 512


class PillowPixels:
    """Pixels in a loaded Pillow picture of mode L, LA, RGB or RGBA."""

    def __init__(self, image: Image.Image, *, owned: bool) -> None:
        self._image = image
        self._owned = owned

    def read(self, box: Box) -> Array:
        """The pixels of ``box``, uint8."""
        out = np.empty((box.height, box.width, len(self._image.getbands())), np.uint8)
        for band in bands(box):
            part = np.asarray(self._image.crop((band.left, band.top, band.right, band.bottom)))
            out[band.top - box.top : band.bottom - box.top] = part.reshape(band.height, band.width, -1)
        return out

    def close(self) -> None:
        """Free the picture, unless it is the caller's."""
        if self._owned:
            self._image.close()


class ArrayPixels:
    """Pixels in the caller's array, (H, W, C)."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def read(self, box: Box) -> Array:
        """The pixels of ``box``, uint8 or float32 clipped to 0..1."""
        part = self._array[box.top : box.bottom, box.left : box.right]
        return part.clip(0, 1) if part.dtype == np.float32 else part

    def close(self) -> None:
        """The array is the caller's."""


def from_pil(image: Image.Image) -> Picture:
    """A Pillow picture of the caller's, shown as its EXIF says.

    UnreadablePictureError: its file is truncated. UnsupportedPictureError: 32-bit integers or floats.
    """
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadablePictureError(
            f"the Pillow picture cannot be decoded: {error}", hint="pass one whose load() succeeds"
        ) from error
    return from_image(image, name="the Pillow picture", owned=False)


def from_image(
    image: Image.Image, *, name: str, owned: bool, picture_format: str | None = None, warnings: tuple[str, ...] = ()
) -> Picture:
    """A loaded Pillow picture; ``owned`` ones are freed by ``close``. UnsupportedPictureError: a mode without use."""
    if min(image.size) < 1:
        raise UnreadablePictureError(f"{name} has no pixels", hint="give a picture of at least 1 x 1")
    plain, changes = to_eight_bit(image, name=name)
    if owned and plain is not image:
        image.close()
    mode: Literal["RGB", "L"] = "L" if plain.mode in {"L", "LA"} else "RGB"
    icc, dropped = fitting_profile(plain.info.get("icc_profile"), mode)
    exif = exif_block(plain.info)
    orientation = Orientation.from_exif(read_orientation(exif))
    height, width = orientation.shown_size(plain.height, plain.width)
    return Picture(
        height=height,
        width=width,
        mode=mode,
        has_alpha=plain.mode in {"LA", "RGBA"},
        dtype="uint8",
        pixels=PillowPixels(plain, owned=owned or plain is not image),
        orientation=orientation,
        icc=icc,
        exif=reset_orientation(exif),
        format=picture_format,
        warnings=(*warnings, *changes, *dropped),
    )


def from_array(array: Array) -> Picture:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), RGB; uint8, or float32 0..1. It is not copied.

    UnsupportedPictureError: another shape or dtype, NaN, or values outside of 0..1. UnreadablePictureError: no pixels.
    """
    _check_array(array)
    pixels = array[..., None] if array.ndim == 2 else array  # noqa: PLR2004 - a plane of grey
    return Picture(
        height=pixels.shape[0],
        width=pixels.shape[1],
        mode="L" if pixels.shape[2] == 1 else "RGB",
        has_alpha=pixels.shape[2] == 4,  # noqa: PLR2004 - RGBA
        dtype="float32" if pixels.dtype == np.float32 else "uint8",
        pixels=ArrayPixels(pixels),
        shape=tuple(array.shape),
    )


def _check_array(array: Array) -> None:
    if array.dtype == np.uint16:
        raise UnsupportedPictureError(
            "uint16 arrays are not handled yet", hint='pass uint8, or float32: (a / 65535).astype("float32")'
        )
    if str(array.dtype) not in {"uint8", "float32"}:
        raise UnsupportedPictureError(f"arrays of {array.dtype} are not handled", hint="pass uint8, or float32 0..1")
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 3, 4}):  # noqa: PLR2004
        raise UnsupportedPictureError(
            f"an array of shape {array.shape} is not a picture",
            hint="pass (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)",
        )
    if not array.size:
        raise UnreadablePictureError(f"an array of shape {array.shape} has no pixels", hint="pass at least 1 x 1")
    if array.dtype == np.float32:
        low, high = float(array.min()), float(array.max())
        # NaN fails every comparison, so it is refused here too.
        if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):
            raise UnsupportedPictureError(
                f"float32 values run from {low:g} to {high:g} instead of 0 to 1",
                hint="divide levels by 255, replace NaN, or clip",
            )
