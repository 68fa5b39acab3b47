"""The smallest whole backend: every pixel becomes a square of pixels.

A template to start from: ``scripts/new-backend`` copies it, without what is here for tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from upx_backends.nearest import faults
from upx_protocol.errors import BadInputError
from upx_protocol.upscaler import Batch, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALES = {"nearest-x2": 2, "nearest-x3": 3, "nearest-x4": 4}


class Backend(Upscaler):
    """Repeats pixels."""

    scale = 1

    def load(self, request: LoadRequest) -> LoadResult:
        """There is nothing to load: the model's name says the scale."""
        faults.on_load(request)
        if request.model not in SCALES:
            raise BadInputError(f"no model {request.model!r} here: {', '.join(SCALES)}")
        self.scale = SCALES[request.model]
        return LoadResult(scale=self.scale, dtypes=("uint8", "uint16", "float32"))

    def upscale(self, batch: Batch) -> list[NDArray[Any]]:
        """Each tile, (H, W, 3), as (H * scale, W * scale, 3) of the same dtype."""
        faults.on_batch(batch)
        return [np.repeat(np.repeat(tile, self.scale, axis=0), self.scale, axis=1) for tile in batch.tiles]
