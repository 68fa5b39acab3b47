"""Write JPEG in bands: each is encoded by Pillow alone, and their scans are joined at restart markers.

A restart marker makes a decoder forget what came before (ITU-T T.81, F.1.1.5.1 and E.1.4), so a picture encoded in
bands of one restart interval each has the very bytes of one encoded whole with that interval.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from upx.media.orientation import EXIF_PREFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx.media.output_file import Sink

# Rows of blocks in a band. The interval counts blocks in 16 bits: 65500 / 8 of them in a row leave room for 8 rows.
_BLOCK_ROWS = 8
# From here on colour keeps its full resolution: below, nobody sees the difference for the noise.
_FULL_COLOUR = 90
# A segment's length has 16 bits and counts itself (T.81, B.1.1.4).
_LONGEST_EXIF = 65533 - len(EXIF_PREFIX)
_START_OF_FRAME, _START_OF_SCAN, _FIRST_RESTART = 0xC0, 0xDA, 0xD0
_END_OF_IMAGE = b"\xff\xd9"


class JpegEncoder:
    """A baseline JPEG that is written while its rows arrive; holds one band of at most 128 rows."""

    streams = True

    def __init__(
        self,
        file: Sink,
        *,
        width: int,
        height: int,
        mode: str,
        quality: int,
        icc: bytes | None = None,
        exif: bytes | None = None,
    ) -> None:
        self._file = file
        self._height = height
        self._full_colour = mode == "L" or quality >= _FULL_COLOUR
        self._quality = quality
        self._icc = icc
        too_long = exif is not None and len(exif) > _LONGEST_EXIF
        self._exif = None if too_long else exif
        self.warnings = ("EXIF dropped: too long for JPEG",) if too_long else ()
        self._band = np.empty((_BLOCK_ROWS * (8 if self._full_colour else 16), width, len(mode)), np.uint8)
        self._filled = 0
        self._written = 0
        self._bands = 0

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows, (n, width, channels) uint8."""
        self._written += len(rows)
        while len(rows):
            room = len(self._band) - self._filled
            part, rows = rows[:room], rows[room:]
            self._band[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == len(self._band):
                self._flush()

    def close(self) -> None:
        """Complete the file; the sink stays open."""
        if self._written != self._height:
            raise ValueError(f"{self._written} of {self._height} rows were written")
        if self._filled:
            self._flush()
        self._file.write(_END_OF_IMAGE)

    def abort(self) -> None:
        """Forget what is held."""
        self._filled = 0

    def _flush(self) -> None:
        encoded = self._encoded(self._band[: self._filled])
        frame, scan = _segments(encoded)
        if self._bands:
            self._file.write(bytes((0xFF, _FIRST_RESTART + (self._bands - 1) % 8)))
        else:
            header = bytearray(encoded[:scan])
            struct.pack_into(">H", header, frame + 5, self._height)
            self._file.write(header)
        self._file.write(memoryview(encoded)[scan : -len(_END_OF_IMAGE)])
        self._bands += 1
        self._filled = 0

    def _encoded(self, band: NDArray[np.uint8]) -> bytes:
        image = Image.fromarray(band[..., 0] if band.shape[2] == 1 else band)
        options: dict[str, Any] = {"quality": self._quality, "restart_marker_rows": _BLOCK_ROWS}
        if image.mode != "L":
            options["subsampling"] = "4:4:4" if self._full_colour else "4:2:0"
        if not self._bands and self._icc:
            options["icc_profile"] = self._icc
        if not self._bands and self._exif:
            options["exif"] = EXIF_PREFIX + self._exif
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        return buffer.getvalue()


def _segments(encoded: bytes) -> tuple[int, int]:
    """Offsets of the frame header's marker and of the first byte of the scan's data."""
    frame, at = 0, 2
    while True:
        marker = encoded[at + 1]
        if marker == _START_OF_FRAME:
            frame = at
        (length,) = struct.unpack_from(">H", encoded, at + 2)
        at += 2 + length
        if marker == _START_OF_SCAN:
            return frame, at
