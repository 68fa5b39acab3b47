"""Which tile and batch a job tries: the user's, the model's, or what worked after a device ran out of memory."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from upx.errors import OutOfMemoryError
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
        known = self._read().get(self._key, {}) if asked == 0 else {}
        tile = spec.tiling.tile if asked == 0 else asked
        if tile is not None and asked == 0:
            tile = min(tile, known.get("tile", tile))
        self._longest = max(picture.height, picture.width)
        self._tile, self._batch = tile, min(spec.batch, known.get("batch", spec.batch))
        return self._tile, self._batch

    def smaller(self, error: OutOfMemoryError, capabilities: Capabilities) -> tuple[int | None, int]:
        """The next thing to try; OutOfMemoryError naming both when nothing is left."""
        spec, options = self._job.route.backend, self._job.options
        overlap = spec.tiling.overlap if options.overlap is None else options.overlap
        floor = smallest_tile(
            overlap=overlap, size=capabilities.size, align=spec.tiling.align, minimum_tile=spec.tiling.minimum_tile
        )
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
        known = {**self._read(), self._key: {"tile": self._tile, "batch": self._batch}}
        path = self._job.memory
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{threading.get_native_id()}")
        beside.write_text(json.dumps(known, indent=1), encoding="utf-8")
        beside.replace(path)

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            return json.loads(self._job.memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # nothing learnt yet, or nothing that can be read: the model's own sizes are tried
