"""Runs TSD-SR in the backend's own environment, which has neither pytest nor upx, and measures it.

python -P tsdsr_kit.py COMMAND GOLDEN FOLDER, with our folders on PYTHONPATH; prints one JSON object. FOLDER may be
written to. COMMANDS stand at the end.
"""

from __future__ import annotations

import json
import sys
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import AutoencoderKL, SD3Transformer2DModel  # noqa: E402
from diffusers.models.embeddings import get_2d_sincos_pos_embed  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tsdsr_files import FILES  # noqa: E402

from upx_backends.tsdsr import colour, files, lora, model, sizes, tiles  # noqa: E402
from upx_backends.tsdsr.loading import load_parts  # noqa: E402
from upx_backends.tsdsr.model import Noise, Options, TsdSr  # noqa: E402
from upx_protocol.errors import BadInputError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN, FOLDER = Path(sys.argv[2]), Path(sys.argv[3])
CASES = json.loads((GOLDEN / "cases.json").read_text())
# Enough to see every wrong variant; all of them are compared over the wire.
SEEING = (("plain_37x29", "nofix"), ("plain_37x29", "adain"), ("upsized_17x13", "wavelet"), ("tiled_53x41", "nofix"))


def golden_files() -> dict[str, str]:
    return {role: str(GOLDEN / path) for role, path in FILES.items()}


def loaded(precision: str = "fp32") -> TsdSr:
    return TsdSr(load_parts(golden_files(), precision, lambda *_: None), torch.device("cpu"))


def options(case: str, method: str) -> Options:
    arguments = {key: value for key, value in CASES[case]["args"].items() if key in Options.__dataclass_fields__}
    posterior = "mode" if "mode" in case else "sample"
    return Options(**arguments, posterior=posterior, colour_fix={"nofix": "none"}.get(method, method))


def picture(case: str) -> np.ndarray:
    return np.load(GOLDEN / "cases" / case / "input.npy").astype(np.float32) / 255


def compare(network: TsdSr, case: str, method: str) -> dict[str, Any]:
    """The largest difference to the golden picture in levels, and the share of values that differ at all."""
    wanted = np.load(GOLDEN / "cases" / case / f"out_{method}.npy").astype(int)
    try:
        result = network.enlarge(picture(case), options(case, method), Noise(42))
        off = np.abs(result.astype(int) - wanted)
    except (RuntimeError, ValueError) as error:
        return {"case": case, "method": method, "error": str(error)[:100]}
    return {"case": case, "method": method, "max": int(off.max()), "share": float((off > 0).mean())}


def compare_size(case: str) -> dict[str, Any]:
    """The size that upstream enlarges to, before our own rule for odd latents, which would hide one that is wrong."""
    height, width = picture(case).shape[:2]
    size = sizes.enlarged(height, width, process_size=options(case, "nofix").process_size)
    wanted = CASES[case].get("processed_pixels_hw") or CASES[case]["pixels_hw"]
    off = max(abs(mine - theirs) for mine, theirs in zip(size, wanted, strict=True))
    return {"case": case, "method": "size", "max": off, "share": float(off > 0)}


def compare_all(network: TsdSr) -> list[dict[str, Any]]:
    return [compare(network, *case) for case in SEEING] + [compare_size(case) for case in CASES]


@contextmanager
def put_in(owner: Any, name: str, wrong: Any) -> Iterator[None]:
    right = getattr(owner, name)
    setattr(owner, name, wrong)
    try:
        yield
    finally:
        setattr(owner, name, right)


# ---------------------------------------------------------------------------------------------- taps


def taps() -> dict[str, Any]:
    """The largest absolute difference to each float tensor that upstream's run left, and to the noise of its seed."""
    network, found = loaded(), {}
    for case in CASES:
        folder = GOLDEN / "cases" / case
        seen: dict[str, torch.Tensor] = {}
        with recorded(network, seen):
            network.enlarge(picture(case), options(case, "nofix"), Noise(42))
        for path in sorted(folder.glob("tap_*.npy")):
            tap, wanted = path.stem.removeprefix("tap_"), np.load(path)
            found[f"{case}/{tap}"] = float(np.abs(seen[tap].numpy() - wanted).max())
    return found


@contextmanager
def recorded(network: TsdSr, seen: dict[str, torch.Tensor]) -> Iterator[None]:
    """Keeps what passes the parts of a step, the first tile's alone for the transformer."""

    def keep(name: str, value: torch.Tensor) -> torch.Tensor:
        seen.setdefault(name, value.detach().clone())
        return value

    def encode(pixels: torch.Tensor, given: Options) -> torch.Tensor:
        corners = [pixels[0, :, :24, :24], pixels[0, :, -24:, -24:]]
        keep("pixels_corners", torch.stack(corners))
        return keep("moments", TsdSr.encode(network, pixels, given))

    def decode(latent: torch.Tensor, given: Options) -> torch.Tensor:
        return keep("decoded", TsdSr.decode(network, keep("decode_in", latent), given))

    def draw(self: Noise, shape: tuple[int, ...]) -> torch.Tensor:
        return keep("noise", drawn(self, shape))

    def after(_module: Any, _arguments: Any, given: dict[str, Any], out: Any) -> None:
        keep("tf_in0", given["hidden_states"])
        keep("tf_out0", out[0])

    drawn, hook = Noise.draw, network.transformer.register_forward_hook(after, with_kwargs=True)
    with put_in(network, "encode", encode), put_in(network, "decode", decode), put_in(Noise, "draw", draw):
        yield
    hook.remove()


def colours() -> dict[str, Any]:
    """Differences of the colour fixes, as floats and as levels."""
    found = {}
    for name in ("a_64x48", "b_33x21"):
        arrays = {
            path.stem.removeprefix(f"{name}_"): np.load(path) for path in (GOLDEN / "colour_fix").glob(f"{name}_*")
        }
        target = arrays["target"]
        fixed = {
            "adain": colour.adain(target, arrays["source_low"]),
            "wavelet": colour.wavelet(target, arrays["source_same"]),
        }
        for method, floats in fixed.items():
            found[f"{name}_{method}_float"] = float(np.abs(floats - arrays[f"{method}_float"]).max())
            found[f"{name}_{method}_u8"] = int(
                np.abs(colour.truncated(floats).astype(int) - arrays[f"{method}_u8"]).max()
            )
        low = colour.low_pass(colour.as_float(arrays["source_same"]))
        found[f"{name}_low_float"] = float(np.abs(low - arrays["wavelet_low_of_source"]).max())
    return found


# ---------------------------------------------------------------------------------------------- wrong variants


def with_shift() -> Iterator[None]:
    """diffusers' usual (z - shift) * scale, and back."""
    shift, drawn, decode = 0.0609, model.sample, TsdSr.decode
    with (
        put_in(model, "sample", lambda moments, noise: drawn(moments, noise) - shift),
        put_in(TsdSr, "decode", lambda self, latent, given: decode(self, latent + shift, given)),
    ):
        yield


def symmetric() -> Iterator[None]:
    def weights(tile: int) -> torch.Tensor:
        across = right(tile)[tile // 2]
        return torch.outer(across, across)

    right = tiles.gaussian_weights
    with put_in(tiles, "gaussian_weights", weights):
        yield


def to_nearest() -> Iterator[None]:
    with put_in(colour, "truncated", colour.rounded):
        yield


def other_timestep() -> Iterator[None]:
    with put_in(model, "TIMESTEP", 999.0):
        yield


def antialiased() -> Iterator[None]:
    def smooth(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)

    with put_in(model, "bicubic", smooth):
        yield


def overlap_shrinks() -> Iterator[None]:
    right = tiles.predict

    def shrunk(network: Any, latent: torch.Tensor, *, tile: int, overlap: int, longest: int) -> torch.Tensor:
        return right(network, latent, tile=tile, overlap=overlap * tile // 64, longest=longest)

    with put_in(tiles, "predict", shrunk):
        yield


def adain_of_the_enlarged() -> Iterator[None]:
    right = colour.adain

    def enlarged(target: np.ndarray, source: np.ndarray) -> np.ndarray:
        return right(target, colour.resized(source, *target.shape[:2]))

    with put_in(colour, "adain", enlarged):
        yield


def biased() -> Iterator[None]:
    def statistics(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = colour.as_float(picture).reshape(-1, 3)
        return pixels.mean(axis=0), np.sqrt(pixels.var(axis=0) + colour.EPSILON)

    with put_in(colour, "_statistics", statistics):
        yield


def half_the_lora() -> Iterator[None]:
    right = lora.fold
    with put_in(lora, "fold", lambda weight, a, b: right(weight, a, b / 2)):
        yield


def without_the_patches_lora() -> Iterator[None]:
    right = lora.fold

    def fold(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return weight.float() if weight.shape[1:] == (16, 2, 2) else right(weight, a, b)

    with put_in(lora, "fold", fold):
        yield


def rebuilt_positions() -> Iterator[None]:
    right = model.TsdSr.__init__

    def build(self: TsdSr, *arguments: Any, **more: Any) -> None:
        right(self, *arguments, **more)
        embed = self.transformer.pos_embed
        table = get_2d_sincos_pos_embed(
            embed.pos_embed.shape[-1], embed.pos_embed_max_size, base_size=embed.base_size, interpolation_scale=1
        )
        embed.pos_embed = torch.from_numpy(table).float()[None]

    with put_in(model.TsdSr, "__init__", build):
        yield


def rounded_size() -> Iterator[None]:
    def enlarged(height: int, width: int, *, process_size: int) -> tuple[int, int]:
        floor = process_size // 4
        factor = max(1, floor / min(height, width))
        return tuple(4 * round(side * factor) // 8 * 8 for side in (height, width))

    with put_in(sizes, "enlarged", enlarged):
        yield


# By the names that the golden MANIFEST.json gives them.
WRONG: dict[str, Callable[[], Iterator[None]]] = {
    "shift factor applied": with_shift,
    "symmetric Gaussian centre": symmetric,
    "rounding to 8 bit": to_nearest,
    "positional table rebuilt": rebuilt_positions,
    "pos_embed.proj LoRA left out": without_the_patches_lora,
    "timestep 999": other_timestep,
    "antialiased bicubic (a=-0.5) for the input": antialiased,
    "overlap shrunk with the tile": overlap_shrinks,
    "adain against the enlarged input": adain_of_the_enlarged,
    "biased variance in adain": biased,
    "LoRA factor 0.5": half_the_lora,
    "rounded instead of truncated size": rounded_size,
}


def wrong() -> dict[str, Any]:
    """What the golden cases say of each variant, and of none."""
    found = {"": compare_all(loaded())}
    for name, variant in WRONG.items():
        with contextmanager(variant)():
            found[name] = compare_all(loaded())
    return found


# ---------------------------------------------------------------------------------------------- files


def edited(role: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of that golden file, changed."""
    path = FOLDER / f"{role}.safetensors"
    tensors = dict(files.open_tensors(Path(golden_files()[role]), role))
    change(tensors)
    save_file({name: each.clone() for name, each in tensors.items()}, path)
    return path


def said(role: str, path: Path) -> str:
    """What loading says when that file is in the place of the golden one; empty when it loads."""
    try:
        load_parts({**golden_files(), role: str(path)}, "fp32", lambda *_: None)
    except BadInputError as error:
        return str(error)
    return ""


def renamed(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            if name.startswith(old):
                tensors[new + name.removeprefix(old)] = tensors.pop(name)

    return change


def cut_to_rank(rank: int, which: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, each in tensors.items():
            if which in name:
                tensors[name] = each[:rank] if "lora_A" in name else each[:, :rank]

    return change


def refused() -> dict[str, Any]:
    """What loading says of files that are not exactly as they should be."""
    found = {}
    query = "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"
    changes: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], None]]] = {
        "lora missing": ("transformer-lora", lambda t: t.pop(query)),
        "lora extra": ("transformer-lora", lambda t: t.update({"transformer.more.lora_A.weight": torch.zeros(4, 4)})),
        "lora quant_conv": (
            "vae-lora",
            lambda t: t.update({"transformer.quant_conv.lora_A.weight": torch.zeros(2, 2)}),
        ),
        "lora rank of B": ("transformer-lora", cut_to_rank(3, query)),
        "lora rank of one": ("vae-lora", cut_to_rank(1, "encoder.conv_out")),
        "lora without prefix": ("vae-lora", renamed("transformer.", "")),
        "lora with vae as prefix": ("vae-lora", renamed("transformer.", "vae.")),
        "lora swapped": ("vae-lora", lambda t: (t.clear(), t.update(load_file(GOLDEN / FILES["transformer-lora"])))),
        "lora empty": ("vae-lora", lambda t: t.clear()),
        "base missing": ("base-vae", lambda t: t.pop("decoder.conv_in.bias")),
        "base extra": ("base-transformer", lambda t: t.update({"quality": torch.zeros(1)})),
        "base shape": ("base-transformer", lambda t: t.update({"proj_out.bias": torch.zeros(63)})),
        "base prefix": ("base-transformer", renamed("", "model.diffusion_model.")),
        "prompt shape": ("prompt-embeds", lambda t: t.update({"tensor": t["tensor"][0]})),
        "prompt width": ("prompt-embeds", lambda t: t.update({"tensor": t["tensor"][..., :-1]})),
        "pool name": ("pool-embeds", renamed("tensor", "pooled")),
        "ranks 1": ("vae-lora", cut_to_rank(1, "")),
        "prompt same": ("prompt-embeds", lambda _: None),
    }
    for name, (role, change) in changes.items():
        found[name] = said(role, edited(role, change))
    for name, (role, path) in no_weights().items():
        found[name] = said(role, path)
    return found


def no_weights() -> dict[str, tuple[str, Path]]:
    """Files of another kind."""
    noise, legacy, script, several = (FOLDER / name for name in ("noise.safetensors", "old.pt", "script.pt", "many.pt"))
    noise.write_bytes(b"no weights" * 100)
    torch.save(torch.zeros(1, 20), legacy, _use_new_zipfile_serialization=False)
    torch.jit.script(torch.nn.Linear(3, 2)).save(str(script))
    torch.save({"tensor": torch.zeros(1, 20), "epoch": 3}, several)
    packed = FOLDER / "packed.pt"
    with zipfile.ZipFile(GOLDEN / FILES["pool-embeds"]) as plain, zipfile.ZipFile(packed, "w", 8) as smaller:
        for member in plain.namelist():
            smaller.writestr(member, plain.read(member))
    configs = {"other": {"_class_name": "UNet2DModel"}, "strange": {"num_layers": "two"}, "list": []}
    for name, config in configs.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(config))
    vae = json.loads((GOLDEN / FILES["base-vae-config"]).read_text())
    (FOLDER / "quant.json").write_text(json.dumps({**vae, "use_quant_conv": True}))
    return {
        "noise": ("base-vae", noise),
        "old pickle": ("pool-embeds", legacy),
        "script": ("pool-embeds", script),
        "pickle with more": ("pool-embeds", several),
        "packed pickle": ("pool-embeds", packed),
        "absent": ("vae-lora", FOLDER / "nowhere"),
        "config other": ("base-vae-config", FOLDER / "other.json"),
        "config strange": ("base-transformer-config", FOLDER / "strange.json"),
        "config list": ("base-transformer-config", FOLDER / "list.json"),
        "config noise": ("base-transformer-config", noise),
        "config quant": ("base-vae-config", FOLDER / "quant.json"),
    }


def full_size() -> dict[str, Any]:
    """The LoRA that the published base would want, against the list of upstream's own; no weights."""
    listed = json.loads((GOLDEN / "full_size_manifest.json").read_text())
    with torch.device("meta"):
        # The table of positions is left small: it takes half a gigabyte, and no LoRA.
        transformer = SD3Transformer2DModel(
            num_layers=24, num_attention_heads=24, attention_head_dim=64, joint_attention_dim=4096, patch_size=2,
            caption_projection_dim=1536, pooled_projection_dim=2048, in_channels=16, out_channels=16,
            pos_embed_max_size=4, sample_size=4,
        )  # fmt: skip
        config = json.loads((GOLDEN / FILES["base-vae-config"]).read_text())
        vae = AutoencoderKL.from_config({**config, "block_out_channels": [128, 256, 512, 512], "norm_num_groups": 32})
    found = {}
    for name, network, pattern in (("transformer", transformer, lora.TRANSFORMER), ("vae", vae, lora.VAE)):
        shapes = {key: tuple(each.shape) for key, each in network.state_dict().items()}
        wants = {key: list(shape) for key, shape in lora.expected(lora.targets(shapes, pattern), 64).items()}
        found[name] = {"same": wants == listed[name], "count": len(wants)}
    return found


# ---------------------------------------------------------------------------------------------- tiles


def tiling() -> dict[str, Any]:
    """Networks of which the result is known, in tiles; and which tiles there are."""

    def network(x: torch.Tensor) -> torch.Tensor:
        calls.append(list(x.shape[-2:]))
        return x * 2

    calls: list[list[int]] = []
    found: dict[str, Any] = {"starts": [tiles.starts(95, 64, 8), tiles.starts(64, 64, 8), tiles.starts(26, 12, 4)]}
    for name, shape, tile, overlap in (
        ("one", (64, 64), 64, 8), ("wide", (64, 95), 64, 8), ("thin", (6, 40), 12, 8), ("long", (2, 400), 64, 8),
        ("odd tile", (30, 30), 13, 4),
    ):  # fmt: skip
        calls.clear()
        x = torch.rand(1, 16, *shape)
        out = tiles.predict(network, x, tile=tile, overlap=overlap, longest=384)
        found[name] = {"off": float((out - 2 * x).abs().max()), "calls": len(calls), "shape": calls[0]}
    x = torch.rand(1, 3, 272, 400)
    pooled = torch.nn.functional.avg_pool2d(x, 8)
    small = tiles.encode(lambda part: torch.nn.functional.avg_pool2d(part, 8), x, tile=96)
    found["encode"] = float((small - pooled).abs().max())
    large = tiles.decode(lambda part: part.repeat_interleave(8, 2).repeat_interleave(8, 3), pooled, tile=96)
    found["decode"] = float((large - pooled.repeat_interleave(8, 2).repeat_interleave(8, 3)).abs().max())
    return found


def halves() -> dict[str, Any]:
    """What of fp16 and bf16 runs on a CPU: how far the VAE is off, and every dtype that the networks hold."""
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found: dict[str, Any] = {}
    with torch.inference_mode():
        whole = loaded()
        moments = whole.encode(x, Options())
        for precision in ("fp16", "bf16"):
            half = loaded(precision)
            held = [*half.transformer.state_dict().values(), *half.vae.state_dict().values(), half.prompt, half.pooled]
            off = [
                (half.encode(x.to(half.dtype), Options()) - moments).abs().mean() / moments.abs().mean(),
                half.pixels(np.zeros((4, 4, 3), np.float32), (16, 16)).float().abs().mean() - 1,
            ]
            found[precision] = {
                "dtypes": sorted({str(each.dtype) for each in held}),
                "off": [float(each) for each in off],
            }
    return found


COMMANDS = {each.__name__: each for each in (taps, colours, wrong, refused, full_size, tiling, halves)}
if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: COMMANDS[name]() for name in sys.argv[1].split(",")}), flush=True)
