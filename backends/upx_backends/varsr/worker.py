"""VARSR on torch: RGB of 8 bits in, four times as large out; every random number comes from the tile's seed.

A tile of up to 128 x 128 pixels is one run of the network. Tiles are done one by one, in batches too: a batch of
another size would round differently, and a code that flips changes the picture.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from upx_backends.varsr.colour import FIXES
from upx_backends.varsr.paths import MODES, SCALE, Knobs, Network, enlarge, open_network
from upx_backends.varsr.sampling import Draws, Recorded, Sampling
from upx_protocol.errors import BadInputError
from upx_protocol.upscaler import Batch, DeviceInfo, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from upx_protocol.messages import Scalar

log = logging.getLogger("upx.varsr")
MODEL = "varsr"
# None: float32 throughout. The others are what autocast computes in.
HALVES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Backend(Upscaler):
    """One network at a time."""

    network: Network | None = None
    noise: NDArray[np.float32] | None = None

    def device(self, wanted: str) -> DeviceInfo:
        """The CPU, or the GPU of that number."""
        if not wanted.startswith("cuda"):
            return DeviceInfo(device="cpu", device_name="torch on the CPU", precisions=("fp32", "bf16"))
        place = _place(wanted)
        free, total = torch.cuda.mem_get_info(place)
        return DeviceInfo(str(place), torch.cuda.get_device_name(place), total, free, _precisions())

    def load(self, request: LoadRequest) -> LoadResult:
        """Read both files; BadInputError for any that does not fit."""
        self.unload()
        if request.model != MODEL:
            raise BadInputError(f"no model {request.model!r} here: {MODEL}")
        place = _place(request.device)
        precision = _precision(request.precision, place)
        half = HALVES[precision]
        if request.threads:
            torch.set_num_threads(request.threads)
        # As upstream has it where it computes in halves; in fp32 every digit is meant.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = half is not None
        self.noise = _noise(str(request.params.get("noise_file") or ""))
        self.network = open_network(request.files, place, request.progress, half)
        return LoadResult(
            scale=SCALE,
            device=str(place),
            device_name=self.device(request.device).device_name,
            precision=precision,
            dtypes=("uint8", "float32"),
            rounding="truncate",
        )

    def upscale(self, batch: Batch) -> list[NDArray[Any]]:
        """Each tile, (H, W, 3), as (4 H, 4 W, 3). Without seeds every tile has the seed 0."""
        if self.network is None:
            raise BadInputError("no network is loaded")
        knobs = read_knobs(batch.params)
        seeds = batch.seeds or (0,) * len(batch.tiles)
        try:
            return [
                enlarge(self.network, _eight_bits(tile), knobs, self._draws(seed, self.network.device))
                for tile, seed in zip(batch.tiles, seeds, strict=True)
            ]
        except FloatingPointError as error:
            way = "take bf16 or fp32" if self.network.half == torch.float16 else "the weights are damaged"
            raise BadInputError(f"{error}: values that are no numbers; {way}") from error

    def _draws(self, seed: int, device: torch.device) -> Draws:
        return Draws(seed, device, noise=None if self.noise is None else Recorded(self.noise, device))

    def unload(self) -> None:
        """Free the network."""
        self.network = self.noise = None
        torch.cuda.empty_cache()  # nothing, where CUDA was never used


def read_knobs(params: Mapping[str, Scalar]) -> Knobs:
    """A job's parameters; BadInputError names the first that is out of its range."""
    usual, chosen = Knobs(), Sampling()
    cfg, top_p = (_number(params, name, getattr(chosen, name)) for name in ("cfg", "top_p"))
    top_k = _number(params, "top_k", chosen.top_k)
    mode, fix = params.get("mode", usual.mode), params.get("colour_fix", usual.colour_fix)
    wrong = {
        "cfg must be 0 or more": cfg < 0,
        "top_k must be 0 or more, and whole": top_k < 0 or top_k != int(top_k),
        "top_p must be 0 to 1": not 0 <= top_p <= 1,
        f"mode must be one of {', '.join(MODES)}": mode not in MODES,
        f"colour_fix must be one of {', '.join(FIXES)}": fix not in FIXES,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise BadInputError(message)
    return Knobs(Sampling(cfg, int(top_k), top_p), str(mode), str(fix))


def _number(params: Mapping[str, Scalar], name: str, default: float) -> float:
    value = params.get(name, default)
    if isinstance(value, (str, bool)) or not math.isfinite(value):
        raise BadInputError(f"{name} must be a number, not {value!r}")
    return value


def _noise(path: str) -> NDArray[np.float32] | None:
    if not path:
        return None
    try:
        draws = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise BadInputError(f"noise_file: {Path(path).name} holds no array ({error})") from error
    if draws.ndim != 3:  # noqa: PLR2004  draws, places, channels
        raise BadInputError(f"noise_file: {Path(path).name} has the shape {list(draws.shape)}, three sides are wanted")
    return draws


def _precisions() -> tuple[str, ...]:
    """What a GPU computes in: those before Ampere have no bf16."""
    return tuple(name for name in HALVES if name != "bf16" or torch.cuda.is_bf16_supported())


def _precision(wanted: str, place: torch.device) -> str:
    """This torch's autocast on a CPU knows bf16 alone, and what is asked for by default is fp16."""
    if wanted not in HALVES:
        raise BadInputError(f"varsr computes in {', '.join(HALVES)}, not in {wanted!r}")
    if place.type == "cuda" and wanted not in _precisions():
        raise BadInputError("this GPU does not compute in bf16: take fp16 or fp32")
    if wanted == "fp16" and place.type == "cpu":
        log.warning("a CPU does not compute in fp16: fp32 is taken")
        return "fp32"
    return wanted


def _place(wanted: str) -> torch.device:
    """The device of that name; BadInputError where there is none."""
    kind, _, number = wanted.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise BadInputError(f"varsr runs on cpu or cuda, not on {wanted}")
    if int(number or 0) >= torch.cuda.device_count():
        raise BadInputError(f"no {wanted} here: torch sees {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", int(number or 0))


def _eight_bits(tile: NDArray[Any]) -> NDArray[np.uint8]:
    """What the network was trained with: floats are rounded to the 256 levels, and clamped."""
    return tile if tile.dtype == np.uint8 else np.rint(np.clip(tile, 0, 1) * 255).astype(np.uint8)
