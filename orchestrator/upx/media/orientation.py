r"""Where a stored pixel is shown: the EXIF orientation read, reset in place, and boxes mapped through it.

EXIF travels as the bare TIFF block, without the ``Exif\0\0`` that JPEG puts before it. It is changed by patching the
orientation's own bytes: writing it anew would move maker notes, whose offsets only the camera's maker knows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from upx.specs import Box

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

EXIF_PREFIX = b"Exif\x00\x00"
_ORIENTATION = 0x0112
# TIFF 6.0, section 2: field types that an orientation is written in, and their struct codes.
_FIELD_CODES = {3: "H", 4: "I"}


@dataclass(frozen=True, slots=True)
class Orientation:
    """How the stored picture is turned to be shown: transposed first, then flipped along the shown axes."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def from_exif(cls, value: int) -> Orientation:
        """From EXIF's 1 to 8 (CIPA DC-008, 4.6.4); anything else means as stored."""
        if not 1 <= value <= 8:  # noqa: PLR2004 - the range that the standard gives
            return cls()
        turn = (value - 1) % 4
        return cls(transposed=value > 4, flip_rows=turn in {2, 3}, flip_columns=turn in {1, 2})  # noqa: PLR2004

    def shown_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) as shown, of a picture stored as height x width."""
        return (width, height) if self.transposed else (height, width)

    def stored_box(self, box: Box, height: int, width: int) -> Box:
        """Where the shown ``box`` lies in the stored picture; height and width are the shown ones."""
        top = height - box.bottom if self.flip_rows else box.top
        left = width - box.right if self.flip_columns else box.left
        if self.transposed:
            return Box(left, top, box.width, box.height)
        return Box(top, left, box.height, box.width)

    def show(self, stored: Array) -> Array:
        """Turn a stored crop (h, w, C) into the shown one, C-contiguous."""
        turned = stored.swapaxes(0, 1) if self.transposed else stored
        turned = turned[::-1] if self.flip_rows else turned
        turned = turned[:, ::-1] if self.flip_columns else turned
        return np.ascontiguousarray(turned)


AS_STORED = Orientation()


def exif_block(info: Mapping[Any, Any]) -> bytes | None:
    """The TIFF block in a Pillow picture's ``info``, None where there is none that can be read."""
    raw = info.get("exif")
    if not isinstance(raw, bytes):
        raw = _from_text(info.get("Raw profile type exif"))
    raw = raw.removeprefix(EXIF_PREFIX)
    return raw if raw[:4] in {b"II*\x00", b"MM\x00*"} else None


def _from_text(text: object) -> bytes:
    """ImageMagick's way to put EXIF into PNG: a name, a length and hexadecimal digits, a line each."""
    if not isinstance(text, str):
        return b""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""  # a picture with a damaged note is still a picture


def read_orientation(exif: bytes | None) -> int:
    """The orientation that EXIF states, 1 where it states none."""
    field = _orientation_field(exif) if exif else None
    if exif is None or field is None:
        return 1
    offset, code = field
    return int(struct.unpack_from(code, exif, offset)[0])


def reset_orientation(exif: bytes | None) -> bytes | None:
    """The same EXIF with orientation 1, every other byte as it was."""
    field = _orientation_field(exif) if exif else None
    if exif is None or field is None:
        return exif
    offset, code = field
    patched = bytearray(exif)
    struct.pack_into(code, patched, offset, 1)
    return bytes(patched)


def _orientation_field(exif: bytes) -> tuple[int, str] | None:
    """(offset, struct code) of the orientation's value in IFD 0; None where it is missing or out of bounds."""
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == _ORIENTATION and kind in _FIELD_CODES:
                code = order + _FIELD_CODES[kind]
                struct.unpack_from(code, exif, entry + 8)
                return entry + 8, code
    except struct.error:
        return None  # damaged EXIF says nothing about orientation
    return None
