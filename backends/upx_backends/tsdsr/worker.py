"""TSD-SR in torch, on CUDA or the CPU: RGB float32 0..1, (H, W, 3), in; (4 H, 4 W, 3) out; any size from 1 x 1 up.

``model`` is what it does to a picture, ``loading`` how the networks come to be.
"""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from upx_backends.tsdsr.loading import DTYPES, load_parts
from upx_backends.tsdsr.model import Noise, Options, TsdSr
from upx_backends.tsdsr.sizes import SCALE
from upx_protocol.errors import BadInputError
from upx_protocol.upscaler import Batch, DeviceInfo, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

log = logging.getLogger("upx.tsdsr")
MODELS = ("tsdsr", "tsdsr-mse")
# Where no seed comes with a tile: the one that upstream's option has, and ignores.
SEED = 42
# Pixels of a result's side, or a VAE's tile: below, latents have no room for two tiles' overlap, or for anything.
LEAST = 64
CHOICES = {
    "posterior": ("sample", "mode"),
    "colour_fix": ("wavelet", "adain", "none"),
    "depth": ("8bit", "float"),
}


class Backend(Upscaler):
    """One model at a time."""

    model: TsdSr | None = None
    noise: NDArray[np.float32] | None = None

    def device(self, wanted: str) -> DeviceInfo:
        """A CUDA device with its memory, or the CPU; BadInputError for what is not there."""
        device = _device(wanted)
        if device.type == "cpu":
            return DeviceInfo(device="cpu", device_name="torch on the CPU", precisions=("fp32", "bf16"))
        free, total = torch.cuda.mem_get_info(device)
        return DeviceInfo(
            device=wanted,
            device_name=torch.cuda.get_device_name(device),
            memory_total=total,
            memory_free=free,
            precisions=tuple(name for name in DTYPES if name != "bf16" or torch.cuda.is_bf16_supported()),
        )

    def load(self, request: LoadRequest) -> LoadResult:
        """Read, fold and check the eight files; BadInputError naming the first thing wrong."""
        self.unload()
        if request.model not in MODELS:
            raise BadInputError(f"no model {request.model!r} here: {', '.join(MODELS)}")
        device = _device(request.device)
        if request.threads:
            torch.set_num_threads(request.threads)
        self.noise = _noise(str(request.params.get("noise_file") or ""))
        precision = _precision(request.precision, device)
        parts = load_parts(request.files, precision, request.progress)
        self.model = TsdSr(parts, device, offload=bool(request.params.get("offload", False)))
        return LoadResult(
            scale=SCALE,
            device=request.device,
            device_name=self.device(request.device).device_name,
            precision=precision,
            dtypes=("float32",),
            rounding="truncate",
        )

    def upscale(self, batch: Batch) -> list[NDArray[Any]]:
        """Each tile by itself, with its own noise."""
        if self.model is None:
            raise BadInputError("no model is loaded")
        options = read_options(batch.params)
        results = []
        for index, tile in enumerate(batch.tiles):
            noise = Noise(batch.seeds[index] if batch.seeds else SEED, self.noise)
            results.append(self.model.enlarge(tile, options, noise))
        return results

    def unload(self) -> None:
        """Free the networks, and what torch keeps of the device for later."""
        self.model = self.noise = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def read_options(params: Mapping[str, Any]) -> Options:
    """The tile's parameters, defaults where there are none; BadInputError for one that makes no sense."""
    given = {field.name: params[field.name] for field in fields(Options) if field.name in params}
    options = Options(**given)
    for name, choices in CHOICES.items():
        if getattr(options, name) not in choices:
            raise BadInputError(f"{name} {getattr(options, name)!r} is none of {', '.join(choices)}")
    least = {"process_size": LEAST, "latent_tiled_size": 2, "latent_tiled_overlap": 0, "vae_tile": 0}
    for name, begins in least.items():
        if getattr(options, name) < begins:
            raise BadInputError(f"{name} begins at {begins}")
    return replace(options, vae_tile=max(options.vae_tile, LEAST)) if options.vae_tile else options


def _device(wanted: str) -> torch.device:
    kind, _, number = wanted.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise BadInputError(f"tsdsr runs on cuda and cpu, not on {wanted!r}")
    if int(number or 0) >= torch.cuda.device_count():
        raise BadInputError(f"this torch finds no {wanted!r}: it sees {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", int(number or 0))


def _precision(wanted: str, device: torch.device) -> str:
    """This torch has no layer norm in fp16 on a CPU, and what is asked for by default is fp16."""
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise BadInputError("this GPU does not compute in bf16: take fp16 or fp32")
    if wanted == "fp16" and device.type == "cpu":
        log.warning("a CPU does not compute in fp16: fp32 is taken")
        return "fp32"
    return wanted


def _noise(path: str) -> NDArray[np.float32] | None:
    if not path:
        return None
    try:
        return np.load(Path(path), allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise BadInputError(f"noise_file: {Path(path).name} holds no array ({error})") from error
