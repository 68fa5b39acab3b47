"""Write WebP: its encoder wants the whole picture, so the whole picture is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from upx.errors import OutputError

if TYPE_CHECKING:
    from typing import IO

    from numpy.typing import NDArray

    from upx.media.output_file import Sink


class WebpEncoder:
    """A lossy WebP. Holds 4 bytes a pixel until ``close``, which needs as much again and more."""

    streams = False

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
        self._size = (width, height)
        self._grey = mode in {"L", "LA"}
        self._mode = {"L": "RGB", "LA": "RGBA"}.get(mode, mode)
        self._quality = quality
        # WebP has no grey, and a profile for grey does not describe RGB.
        self._icc = None if self._grey else icc
        self._exif = exif
        self.warnings = ("colour profile dropped: WebP has no grey",) if self._grey and icc else ()
        self._canvas: Image.Image | None = None
        self._written = 0

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows, (n, width, channels) uint8."""
        if self._canvas is None:
            self._canvas = Image.new(self._mode, self._size)
        if self._grey:
            rows = np.concatenate((rows[..., :1].repeat(3, axis=2), rows[..., 1:]), axis=2)
        self._canvas.paste(Image.fromarray(np.ascontiguousarray(rows)), (0, self._written))
        self._written += len(rows)

    def close(self) -> None:
        """Encode and write the file; the sink stays open. OutputError: the encoder gave up, mostly for memory."""
        if self._canvas is None or self._written != self._size[1]:
            raise ValueError(f"{self._written} of {self._size[1]} rows were written")
        metadata = {"icc_profile": self._icc or b"", "exif": self._exif or b""}
        try:
            self._canvas.save(cast("IO[bytes]", self._file), "WEBP", quality=self._quality, **metadata)
        except (ValueError, MemoryError) as error:
            raise OutputError(f"WebP could not be encoded: {error}", hint="choose PNG with -f png") from error
        self.abort()

    def abort(self) -> None:
        """Forget what is held."""
        self._canvas = None
