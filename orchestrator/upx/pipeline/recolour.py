"""Colour fixes over the whole stitched picture: bands are spooled to a scratch file, then fixed in their order.

``adain`` needs the statistics of all bands before the first can be fixed; ``wavelet`` needs REACH rows around each.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from PIL import Image

from upx.colour import REACH, adain, from_unit, statistics, wavelet
from upx.errors import OutputError
from upx.specs import Box

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from upx.colour import Statistics
    from upx.media.channels import Channels
    from upx.media.picture import Picture
    from upx.specs import ColourSpec

Array: TypeAlias = "NDArray[Any]"
# Output rows fixed at a time: with their halo a few MB of a wide picture.
ROWS = 128


class Recolour:
    """One picture's fix; ``method`` is "adain" or "wavelet". Use it in a ``with`` block.

    ``stitched``: the dtype of the bands that come, uint8 or float32; they leave in the one of ``channels``.
    """

    def __init__(
        self,
        method: str,
        spec: ColourSpec,
        picture: Picture,
        channels: Channels,
        folder: Path,
        stitched: np.dtype[Any],
    ) -> None:
        self._method, self._spec, self._stitched = method, spec, stitched
        self._picture, self._channels, self._folder = picture, channels, folder
        self._height, self._width = picture.height * channels.scale, picture.width * channels.scale
        self._dtype = np.dtype(channels.dtype)

    def __enter__(self) -> Self:
        """OutputError where the scratch file cannot be made."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._spool = tempfile.TemporaryFile(dir=self._folder)  # closed by __exit__
        except OSError as error:
            raise _no_room(error, self._folder) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def take(self, top: int, band: Array) -> None:
        """Spool stitched rows (n, W, 3), the first being row ``top``; OutputError without space."""
        try:
            self._spool.seek(top * self._row_bytes)
            self._spool.write(np.ascontiguousarray(band).data)
            self._spool.flush()
        except OSError as error:
            raise _no_room(error, self._folder) from error

    def bands(self) -> Iterator[tuple[int, Array]]:
        """The fixed rows, from the first on, rounded where the picture has integers."""
        fixed = self._adain() if self._method == "adain" else self._wavelet()
        for top, values in fixed:
            yield top, from_unit(values, self._dtype, truncate=self._spec.truncate)

    def _adain(self) -> Iterator[tuple[int, Array]]:
        own = statistics(self._rows(top, end) for top, end in self._spans())
        source = self._source_statistics()
        for top, end in self._spans():
            yield top, adain(self._rows(top, end), own, source)

    def _wavelet(self) -> Iterator[tuple[int, Array]]:
        enlarged = Enlarged(self._whole(), self._channels.scale)
        for top, end in self._spans():
            first, last = max(top - REACH, 0), min(end + REACH, self._height)
            fixed = wavelet(self._rows(first, last), enlarged.rows(first, last))
            yield top, fixed[top - first : end - first]

    def _source_statistics(self) -> Statistics:
        if self._spec.adain == "input":
            step, picture = ROWS, self._picture
            return statistics(
                self._channels.tile(Box(top, 0, min(step, picture.height - top), picture.width))
                for top in range(0, picture.height, step)
            )
        enlarged = Enlarged(self._whole(), self._channels.scale)
        return statistics(enlarged.rows(top, end) for top, end in self._spans())

    def _whole(self) -> Array:
        return self._channels.tile(Box(0, 0, self._picture.height, self._picture.width))

    def _spans(self) -> Iterator[tuple[int, int]]:
        return ((top, min(top + ROWS, self._height)) for top in range(0, self._height, ROWS))

    def _rows(self, top: int, end: int) -> Array:
        self._spool.seek(top * self._row_bytes)
        content = self._spool.read((end - top) * self._row_bytes)
        return np.frombuffer(content, self._stitched).reshape(end - top, self._width, 3)

    @property
    def _row_bytes(self) -> int:
        return self._width * 3 * self._stitched.itemsize


class Enlarged:
    """A picture (H, W, 3), uint8 or float32, enlarged by Pillow's bicubic interpolation, a band at a time.

    Pillow enlarges rows first, then columns, rounding in between; done apart, the second step can be done in bands
    whose values are those of one call for the whole picture.
    """

    def __init__(self, picture: Array, scale: int) -> None:
        self._scale = scale
        self._width = picture.shape[1] * scale
        self._wide = [
            plane.resize((self._width, picture.shape[0]), Image.Resampling.BICUBIC) for plane in _planes(picture)
        ]

    def rows(self, top: int, end: int) -> Array:
        """Rows ``top`` to ``end`` of the enlarged picture, (n, W * scale, 3), in the picture's dtype."""
        # Whole source rows: Pillow keeps a box in floats that hold no thirds.
        first, last = top // self._scale, -(-end // self._scale)
        size, box = (self._width, (last - first) * self._scale), (0, first, self._width, last)
        bands = [each.resize(size, Image.Resampling.BICUBIC, box=box) for each in self._wide]
        whole = np.stack([np.asarray(band) for band in bands], axis=-1)
        return whole[top - first * self._scale : end - first * self._scale]


def _planes(picture: Array) -> list[Image.Image]:
    return [Image.fromarray(np.ascontiguousarray(picture[..., channel])) for channel in range(3)]


def _no_room(error: OSError, folder: Path) -> OutputError:
    return OutputError(
        f"the colour fix cannot keep the picture in {folder}: {error.strerror}",
        hint="make room there, set UPX_HOME to a larger disk, or switch the colour fix off",
    )
