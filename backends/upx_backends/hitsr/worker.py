"""HiT-SR in torch: RGB float32 0..1, (H, W, 3), in; (H * scale, W * scale, 3) out, unclamped; any size, unpadded.

The networks are in ``model``, the files in ``weights``. On the CPU and on Apple's GPUs they run in fp32; on CUDA also
in fp16 and bf16, which are compared with fp32 when they are loaded.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import torch

from upx_backends.hitsr.weights import load_network
from upx_protocol.arrays import to_float
from upx_protocol.errors import BadInputError, FatalError
from upx_protocol.upscaler import Batch, DeviceInfo, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_backends.hitsr.model import HitSR

log = logging.getLogger("upx.hitsr")
MODEL = re.compile(r"hitsr-(sir|sng|srf)-x([234])(?:-df2k)?")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# The side of the picture that a load ends with, and how far from fp32 it may be on average in another precision, of 1.
WARM_UP = 64
FARTHEST = 2 / 255


class Backend(Upscaler):
    """One network at a time."""

    network: HitSR | None = None
    device_used = torch.device("cpu")

    def device(self, wanted: str) -> DeviceInfo:
        """What torch knows of it; FatalError where it is not there."""
        device = torch.device(wanted)
        if device.type == "cuda" and torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info(device)
            name = torch.cuda.get_device_name(device)
            return DeviceInfo(wanted, name, memory_total=total, memory_free=free, precisions=_precisions())
        if device.type == "mps" and torch.backends.mps.is_available():
            return DeviceInfo(wanted, "Apple GPU", memory_total=torch.mps.recommended_max_memory())
        if device.type != "cpu":
            raise FatalError(f"torch finds no {wanted} here")
        return DeviceInfo(wanted, "torch on the CPU")

    def load(self, request: LoadRequest) -> LoadResult:
        """Read the weights, all of them, and run once; BadInputError for files that are none of this model."""
        self.unload()
        family, scale = _family_and_scale(request)
        self.device_used = torch.device(request.device)
        _set_up(self.device_used, request.threads)
        request.progress("reading the weights", 0, 2)
        network = load_network(request.files["weights"], request.files.get("config"), scale, family=family)
        network.to(self.device_used)
        request.progress("warming up", 1, 2)
        precision = _precision(request.precision, self.device_used)
        _warm_up(network, self.device_used, precision)
        self.network = network
        return LoadResult(
            scale=scale,
            device=request.device,
            device_name=self.device(request.device).device_name,
            precision=precision,
            dtypes=("uint8", "float32"),
            rounding="half_even",
        )

    def upscale(self, batch: Batch) -> list[NDArray[Any]]:
        """Each tile, (H, W, 3), as (H * scale, W * scale, 3), float32."""
        return [self._run(tile) for tile in batch.tiles]

    def unload(self) -> None:
        """Free the network."""
        self.network = None
        if self.device_used.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run(self, tile: NDArray[Any]) -> NDArray[Any]:
        if self.network is None:
            raise BadInputError("no network is loaded")
        picture = torch.tensor(to_float(tile), device=self.device_used)
        return self.network(picture).cpu().numpy()


def _family_and_scale(request: LoadRequest) -> tuple[str, int]:
    """What the model's name says; BadInputError for what cannot be loaded at all."""
    found = MODEL.fullmatch(request.model)
    if found is None:
        raise BadInputError(f"no model {request.model!r} here")
    if "weights" not in request.files:
        raise BadInputError("no file for 'weights'")
    if request.precision not in DTYPES:
        raise BadInputError(f"no precision {request.precision!r} here: {', '.join(DTYPES)}")
    return found[1], int(found[2])


def _precisions() -> tuple[str, ...]:
    """What a GPU computes in: those before Ampere have no bf16."""
    return tuple(name for name in DTYPES if name != "bf16" or torch.cuda.is_bf16_supported())


def _precision(wanted: str, device: torch.device) -> str:
    """Halves are for CUDA: elsewhere they would be slower, and no nearer to anything."""
    if device.type == "cuda" and wanted not in _precisions():
        raise BadInputError("this GPU does not compute in bf16: take fp16 or fp32")
    if wanted != "fp32" and device.type != "cuda":
        log.warning("%s runs on CUDA only: fp32 is taken", wanted)
        return "fp32"
    return wanted


def _set_up(device: torch.device, threads: int) -> None:
    """The process's own settings; with 0 threads torch takes as many as there are cores."""
    if threads > 0:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # fp32 means fp32, and one input has one result.
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        torch.backends.cudnn.deterministic = True


@torch.inference_mode()
def _warm_up(network: HitSR, device: torch.device, precision: str) -> None:
    """Run once, and leave the network in that precision; BadInputError where it computes something else in it."""
    picture = torch.rand(WARM_UP, WARM_UP, 3, generator=torch.Generator().manual_seed(0)).to(device)
    exact = network(picture)
    if precision != "fp32":
        network.lower(DTYPES[precision])
        off = float((network(picture) - exact).abs().mean())
        if not off <= FARTHEST:  # also for what is no number
            raise BadInputError(f"{precision} is off by {off:.1e} of 1 on average with these weights: use fp32")
