"""Real-ESRGAN in ncnn on the CPU: RGB float32 0..1, (3, H, W), in and out; any size, no padding needed.

Two architectures. RRDBNet (realesrgan-x4plus, -anime) computes at the picture's size and enlarges in its last layers,
its tail, which takes nearly all of the memory; so the tail is run in strips of rows. SRVGGNetCompact
(realesr-animevideov3) is a small x4 network; its x2 and x3 end in a bicubic reduction of the same result.

Real-ESRGAN: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data" (2021),
arXiv 2107.10833.
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
# Input pixels of one strip of the tail, and the rows more on each side: it reaches 5 output rows, two of the input's.
STRIP = 8192
MARGIN = 2


class Backend(Upscaler):
    """One network at a time."""

    net: ncnn.Net | None = None
    # The blob that the tail begins with; None for a network that is run as a whole.
    tail: str | None = None

    def device(self, wanted: str) -> DeviceInfo:  # noqa: ARG002  there is no other
        """Always the CPU."""
        return DeviceInfo(device="cpu", device_name=NAME)

    def load(self, request: LoadRequest) -> LoadResult:
        """Read the network and find its scale by running it; BadInputError for files that are none."""
        self.unload()
        if request.device != "cpu" or request.precision != "fp32":
            raise BadInputError("realesrgan runs on the CPU in fp32")
        request.progress("reading the network", 0, 1)
        self.net = _network(request)
        self.tail = _tail(request.files["param"])
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
        planes = np.empty((3, *tile.shape[:2]), np.float32)  # (H, W, 3) -> (3, H, W)
        np.multiply(tile.transpose(2, 0, 1), np.float32(1 / 255 if tile.dtype == np.uint8 else 1), out=planes)
        source, result = self.net.input_names()[0], self.net.output_names()[0]
        if self.tail is None:
            large = _extract(self.net, source, planes, result)
        else:
            large = _in_strips(self.net, self.tail, _extract(self.net, source, planes, self.tail), result)
        return large.transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)


def _extract(net: ncnn.Net, source: str, planes: NDArray[np.float32], result: str) -> NDArray[np.float32]:
    """Blob ``result`` for ``planes`` as blob ``source``; both (C, H, W), contiguous."""
    # ncnn borrows this memory; `planes` keeps it until the result is there.
    borrowed = ncnn.Mat(planes)
    extractor = net.create_extractor()
    extractor.input(source, borrowed)
    status, found = extractor.extract(result)
    if status == NO_MEMORY:
        raise OutOfMemoryError(f"{planes.shape[2]} x {planes.shape[1]} pixels do not fit into memory")
    if status != 0:
        raise TransientError(f"ncnn failed with status {status}")
    # The array keeps the Mat alive, and the Mat its memory.
    return np.asarray(found)


def _in_strips(net: ncnn.Net, source: str, features: NDArray[np.float32], result: str) -> NDArray[np.float32]:
    """The tail over (C, H, W): even strips of rows, each seeing MARGIN rows more, which are cut off its result."""
    height, width = features.shape[1:]
    count = -(-height * width // STRIP)
    strips: list[NDArray[np.float32]] = []
    for index in range(count):
        top, bottom = height * index // count, height * (index + 1) // count
        first, last = max(0, top - MARGIN), min(height, bottom + MARGIN)
        large = _extract(net, source, np.ascontiguousarray(features[:, first:last]), result)
        scale = large.shape[1] // (last - first)
        strips.append(large[:, (top - first) * scale : (bottom - first) * scale])
    return np.concatenate(strips, axis=1)


def _network(request: LoadRequest) -> ncnn.Net:
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = max(1, request.threads)
    for role, read in (("param", net.load_param), ("weights", net.load_model)):
        path = request.files.get(role)
        if path is None or not Path(path).is_file():
            raise BadInputError(f"no file for {role!r}: {path}")
        if read(path) != 0:
            raise BadInputError(f"{Path(path).name} is no {role} of an ncnn network")
    return net


def _tail(param: str) -> str | None:
    """The blob that the first of RRDBNet's two doublings reads; None for another network."""
    layers = [line.split() for line in Path(param).read_text(encoding="utf-8").splitlines()]
    read = [layer[4] for layer in layers if layer[:1] == ["Interp"] and "1=2.000000e+00" in layer]
    return read[0] if len(read) == 2 else None  # noqa: PLR2004
