"""Which tile and batch a job tries: the user's, the model's, or what worked after a device ran out of memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

from upx.errors import OutOfMemoryError
from upx.notes import read_note, write_note
from upx.tiling import smallest_tile

if TYPE_CHECKING:
    from upx.media.picture import Picture
    from upx.pipeline.job import Job
    from upx.specs import Capabilities


class Sizes:
    """The tile and batch of one job on one device; what was learnt is kept in ``job.memory`` for the next."""

    def __init__(self, job: Job, device: str) -> None:
        self._job = job
        self._key = f"{job.route.model.name} on {device}"
        self._tile: int | None = None
        self._batch = 1
        self._shrunk = False

    def start(self, picture: Picture) -> tuple[int | None, int]:
        """(tile or None for the whole picture, batch) to begin with."""
        spec, asked = self._job.route.backend, self._job.options.tile
        tile, batch = asked, spec.batch
        if asked == 0:
            tile, batch = self._known("tile", spec.tiling.tile), self._known("batch", spec.batch)
        self._longest = max(picture.height, picture.width)
        self._tile, self._batch = tile, batch
        return self._tile, self._batch

    def smaller(self, error: OutOfMemoryError, capabilities: Capabilities) -> tuple[int | None, int]:
        """The next thing to try; OutOfMemoryError naming both when nothing is left."""
        spec, options = self._job.route.backend, self._job.options
        overlap = spec.tiling.overlap if options.overlap is None else options.overlap
        floor = smallest_tile(overlap=overlap, size=capabilities.size, minimum_tile=spec.tiling.minimum_tile)
        self._shrunk = True
        tile = min(self._tile or self._longest, self._longest)
        if self._batch > 1:
            self._batch //= 2
        elif tile > floor and spec.tiling.stitch != "none":
            self._tile = max(tile // 2, floor)
        else:
            raise OutOfMemoryError(
                f"out of memory on {capabilities.device_name or capabilities.device} even with a tile of {tile} pixels "
                f"and a batch of {self._batch}: {error}",
                hint="close other programs, or try a smaller model (upx backends) or -d cpu",
            ) from error
        return self._tile, self._batch

    def remember(self) -> None:
        """Keep what worked, where something smaller than the model's own was needed."""
        if not self._shrunk or self._tile is None:
            return
        known = {**read_note(self._job.memory), self._key: {"tile": self._tile, "batch": self._batch}}
        with contextlib.suppress(OSError):  # the picture is done: what is not remembered is found out again
            write_note(self._job.memory, known)

    def _known(self, name: str, usual: int) -> int:
        """What is remembered, where that is a number below the model's own."""
        known: Any = read_note(self._job.memory).get(self._key)
        value: Any = cast("dict[str, Any]", known).get(name) if isinstance(known, dict) else None
        return min(value, usual) if isinstance(value, int) and value > 0 else usual
