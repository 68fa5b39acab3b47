"""Answers every tile with an array that it made before: in the worker's own memory, as a network leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from upx_protocol.upscaler import Batch, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALE = 4


class Backend(Upscaler):
    """Every result but the first byte is the same; that one is the tile's, so that no answer can be an old one."""

    def load(self, _request: LoadRequest) -> LoadResult:
        """Nothing to load."""
        self._held: dict[tuple[int, ...], list[NDArray[Any]]] = {}
        return LoadResult(scale=SCALE, dtypes=("uint8",))

    def upscale(self, batch: Batch) -> list[NDArray[Any]]:
        """As many arrays as there are tiles, each of its own."""
        height, width = batch.tiles[0].shape[:2]
        key = (len(batch.tiles), height, width)
        if key not in self._held:
            shape = (height * SCALE, width * SCALE, 3)
            rng = np.random.default_rng(0)
            self._held[key] = [rng.integers(0, 256, shape, np.uint8) for _ in batch.tiles]
        results = self._held[key]
        for tile, result in zip(batch.tiles, results, strict=True):
            result[0, 0, 0], result[-1, -1, -1] = tile[0, 0, 0], tile[-1, -1, -1]
        return results
