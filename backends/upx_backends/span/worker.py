"""SPAN in ncnn on the CPU: RGB float32 0..1, (3, H, W), in and out; any size, no padding needed.

SPAN: Wan et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution" (2023), arXiv 2311.12770.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ncnn
import numpy as np

from upx_protocol.errors import BadInputError, OutOfMemoryError, TransientError
from upx_protocol.upscaler import Batch, DeviceInfo, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "ncnn on the CPU"
# What ncnn returns when it cannot allocate.
NO_MEMORY = -100


class Backend(Upscaler):
    """One network at a time."""

    net: ncnn.Net | None = None

    def device(self, wanted: str) -> DeviceInfo:  # noqa: ARG002  there is no other
        """Always the CPU."""
        return DeviceInfo(device="cpu", device_name=NAME)

    def load(self, request: LoadRequest) -> LoadResult:
        """Read the network and find its scale by running it; BadInputError for files that are none."""
        self.unload()
        if request.device != "cpu" or request.precision != "fp32":
            raise BadInputError("span runs on the CPU in fp32")
        net = ncnn.Net()
        net.opt.use_vulkan_compute = False
        net.opt.num_threads = max(1, request.threads)
        request.progress("reading the network", 0, 1)
        _read(net, request)
        self.net = net
        # The first run also allocates: a picture's first tile does not wait for it.
        scale = self._run(np.zeros((16, 16, 3), np.float32)).shape[0] // 16
        return LoadResult(scale=scale, device_name=NAME, dtypes=("uint8", "float32"))

    def upscale(self, batch: Batch) -> list[NDArray[Any]]:
        """Each tile, (H, W, 3), as a view (H * scale, W * scale, 3), float32, of memory that is its own."""
        return [self._run(tile) for tile in batch.tiles]

    def unload(self) -> None:
        """Free the network."""
        self.net = None

    def _run(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        if self.net is None:
            raise BadInputError("no network is loaded")
        # (H, W, 3) -> (3, H, W). ncnn borrows this memory: the name keeps it until the result is there.
        planes = np.empty((3, *tile.shape[:2]), np.float32)
        np.multiply(tile.transpose(2, 0, 1), np.float32(1 / 255 if tile.dtype == np.uint8 else 1), out=planes)
        borrowed = ncnn.Mat(planes)
        extractor = self.net.create_extractor()
        extractor.input(self.net.input_names()[0], borrowed)
        status, result = extractor.extract(self.net.output_names()[0])
        if status == NO_MEMORY:
            raise OutOfMemoryError(f"a tile of {tile.shape[1]} x {tile.shape[0]} does not fit into memory")
        if status != 0:
            raise TransientError(f"ncnn failed with status {status}")
        # The view keeps the Mat alive, and the Mat its memory.
        return np.asarray(result).transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)


def _read(net: ncnn.Net, request: LoadRequest) -> None:
    for role, read in (("param", net.load_param), ("weights", net.load_model)):
        path = request.files.get(role)
        if path is None or not Path(path).is_file():
            raise BadInputError(f"no file for {role!r}: {path}")
        if read(path) != 0:
            raise BadInputError(f"{Path(path).name} is no {role} of an ncnn network")
