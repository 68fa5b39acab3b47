"""TSD-SR or VARSR at the released size, random numbers: full_inside.py make|run NAME FOLDER [PARAMS] BACKENDS PROTOCOL.

"make" writes files of weights with the released names, shapes and dtypes into FOLDER. "run" loads them by the worker's
own code, as a worker does, and enlarges one tile of 128 x 128. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = sys.argv[-2:]
warnings.simplefilter("ignore")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

SIDE = 128
RANK = 64
TRANSFORMER = {
    "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16,
    "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "caption_projection_dim": 1536,
    "joint_attention_dim": 4096, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 16,
    "norm_num_groups": 32, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False,
    "use_post_quant_conv": False,
}  # fmt: skip


def random(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Small numbers, so that no sum overflows; 1 for what scales a norm, or all would fade to denormals."""

    def filled(name: str, shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 1 and name.endswith("weight"):
            return torch.ones(shape, dtype=dtype)
        return (torch.randn(shape) * 0.02).to(dtype)

    return {name: filled(name, shape) for name, shape in shapes.items()}


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in network.state_dict().items()}


def make_tsdsr(folder: Path) -> None:
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    from upx_backends.tsdsr import lora

    networks = (
        ("transformer", SD3Transformer2DModel, TRANSFORMER, lora.TRANSFORMER),
        ("vae", AutoencoderKL, VAE, lora.VAE),
    )
    for name, kind, config, pattern in networks:
        (folder / f"base-{name}-config.json").write_text(json.dumps(config))
        with torch.device("meta"):
            shapes = shapes_of(kind.from_config(config))
        save_file(random(shapes, torch.float16), folder / f"base-{name}.safetensors")
        changes = lora.expected(lora.targets(shapes, pattern), RANK)
        save_file(random(changes, torch.float32), folder / f"{name}-lora.safetensors")
    for role, shape in (("prompt-embeds", (1, 333, 4096)), ("pool-embeds", (1, 2048))):
        save_file(random({"tensor": shape}, torch.float16), folder / f"{role}.safetensors")


def make_varsr(folder: Path) -> None:
    from upx_backends.varsr.config import Config
    from upx_backends.varsr.model import VARSR
    from upx_backends.varsr.vqvae import VQVAE

    with torch.device("meta"):
        networks = {"var": VARSR(Config()), "vqvae": VQVAE(Config())}
    for role, network in networks.items():
        save_file(random(shapes_of(network), torch.float32), folder / f"{role}.safetensors")


class Watch:
    """The most memory that this process had of its own, and with the files that it maps; in MB."""

    def __init__(self) -> None:
        self.own = self.all = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:  # noqa: PYI034  these environments may be older than Self
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            kb = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "RssAnon"))}
            self.own = max(self.own, int(kb["RssAnon"]) * 1024 / 1e6)
            self.all = max(self.all, int(kb["VmRSS"]) * 1024 / 1e6)


def run(name: str, folder: Path, params: dict[str, Any]) -> dict[str, float]:
    """Seconds of loading and of one tile, wall and CPU."""
    import importlib

    from upx_protocol.upscaler import Batch, LoadRequest

    worker = importlib.import_module(f"upx_backends.{name}.worker")
    files = {path.stem: str(path) for path in folder.iterdir()}
    tile = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    precision = params.pop("precision", "fp32")
    with Watch() as watch:
        backend, begin = worker.Backend(), time.perf_counter()
        backend.load(LoadRequest(name, files, "cpu", precision, 0, {}, lambda *_: None))
        loaded, cpu = time.perf_counter(), time.process_time()
        (result,) = backend.upscale(Batch((tile,), (1,), params))
        wall = time.perf_counter() - loaded
    if result.shape != (4 * SIDE, 4 * SIDE, 3) or not np.isfinite(result).all():
        raise RuntimeError(f"the result is {result.shape} and holds what is no number")
    return {
        "load": loaded - begin, "wall": wall, "cpu": time.process_time() - cpu, "own": watch.own, "all": watch.all
    }  # fmt: skip


def main() -> None:
    command, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    torch.manual_seed(0)
    if command == "make":
        {"tsdsr": make_tsdsr, "varsr": make_varsr}[name](folder)
        print("{}")
    else:
        print(json.dumps(run(name, folder, json.loads(sys.argv[4]))))


main()
