"""Runs VARSR's parts and the whole in the backend's own environment, which has neither pytest nor upx.

python -P varsr_kit.py REQUEST.json RESULT.npz, with our folders on PYTHONPATH; the request names one of the COMMANDS.
Weights that nobody has to store come from a recipe: each tensor is seeded by its name alone.
"""

from __future__ import annotations

import argparse
import collections
import json
import resource
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from upx_backends.varsr import colour, model, paths, refiner, sampling, vqvae
from upx_backends.varsr.config import Config, read_config
from upx_backends.varsr.loading import load_networks
from upx_protocol.errors import BadInputError

CPU = torch.device("cpu")
SEED, NOISE_SEED = 21, 77000
ROOT3 = 3**0.5


# ---------------------------------------------------------------------------------------------- the recipe


def recipe(name: str, shape: tuple[int, ...], prefix: str) -> torch.Tensor:
    """The tensor of that name, float32."""
    seed = zlib.crc32(f"{prefix}.{name}".encode()) ^ SEED
    x = 2 * np.random.RandomState(seed).random_sample(int(np.prod(shape))).reshape(shape) - 1
    return torch.from_numpy(value(name, x).astype(np.float32))


def value(name: str, x: np.ndarray) -> np.ndarray:
    if name.endswith("scale_mul_1H11"):
        return np.log(30) + 0.4 * x
    if name.endswith(("q_bias", "v_bias")):
        return 0.2 * x
    if name in {"pos_start", "lvl_embed.weight", "quantize.embedding.weight"}:
        return 0.5 * ROOT3 * x
    if name == "class_emb.weight":
        return 0.7 * ROOT3 * x
    if name.endswith("bias"):
        return (0.3 if "ada" in name else 0.1) * x
    if x.ndim == 1:
        return 1 + 0.2 * x
    return gain(name) * ROOT3 * x / np.sqrt(np.prod(x.shape[1:]))


def gain(name: str) -> float:
    if name == "head.weight":
        return 4
    if "ada" in name:
        return 0.25
    if name == "word_embed.weight":
        return 2.5
    if name.endswith("attn.proj.weight"):
        return 2
    if name == "decoder.conv_out.weight":
        return 0.35
    if name.startswith("con_embedding"):
        return 1.8
    return 0.35 if name.endswith("final_layer.linear.weight") else 1


def make_weights(folder: Path, config: Config) -> dict[str, str]:
    """Files of that size in ``folder``, by role; the names are those of our own networks."""
    with torch.device("meta"):
        networks = {"var": model.VARSR(config), "vqvae": vqvae.VQVAE(config)}
    files = {"config": str(folder / "config.json")}
    for role, prefix in (("var", "var_wo_ddp"), ("vqvae", "vae_local")):
        shapes = {name: tuple(each.shape) for name, each in networks[role].state_dict().items()}
        files[role] = str(folder / f"{role}.safetensors")
        save_file({name: recipe(name, shape, prefix) for name, shape in shapes.items()}, files[role])
    return files


class Noise:
    """The refiner's noise of upstream's run: eleven draws a call, for a row of ``columns`` tiles, good halves first."""

    def __init__(self, columns: int) -> None:
        self.columns, self.drawn = columns, 0

    def __call__(self, rows: int, channels: int) -> torch.Tensor:
        # A run takes ten: what upstream draws last it multiplies by 0.
        tile, draw = divmod(self.drawn, 10)
        self.drawn += 1
        halves = 1 if draw == 0 else 2
        column = tile % self.columns
        drawn = np.random.RandomState(NOISE_SEED + draw).standard_normal((halves * self.columns * rows, channels))
        return torch.from_numpy(drawn[column * rows : (column + 1) * rows].astype(np.float32))


# ---------------------------------------------------------------------------------------------- watched runs


class Watched(sampling.Draws):
    """Draws that note the codes and what they were chosen from."""

    def __init__(self, seed: int = 0, noise=None) -> None:
        super().__init__(seed, noise=noise)
        self.logits, self.indices = [], []

    def choose(self, logits, how):
        chosen = super().choose(logits, how)
        self.logits.append(logits.numpy().copy())
        self.indices.append(chosen.numpy().copy())
        return chosen


def watch(module, notes: list, *, inputs: bool = False) -> None:
    module.register_forward_hook(
        lambda _module, given, out: notes.append((given[0] if inputs else out).detach().numpy().copy())
    )


def opened(request, half: torch.dtype | None = None) -> paths.Network:
    return paths.open_network(request["files"], CPU, lambda *_: None, half)


def listed(arrays, name: str) -> dict:
    return {f"{name}.{index}": each for index, each in enumerate(arrays)}


def stored(golden, name: str):
    """Noise that a golden file holds, draw by draw."""
    draws = iter([golden[f"{name}.0"], *golden[f"{name}.1"]])
    return lambda rows, _channels: torch.from_numpy(next(draws)[:rows])


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---------------------------------------------------------------------------------------------- commands


def weights(request) -> dict:
    folder = Path(request["folder"])
    make_weights(folder, read_config(str(folder / "config.json")))
    return {}


def parts(request) -> dict:
    """Every part on its own, with the inputs of the golden file."""
    network = paths.Network(*load_networks(request["files"], CPU, lambda *_: None), CPU)
    golden = np.load(request["golden"])
    var, vae = network.var, network.vae
    given = {name: torch.from_numpy(golden[name]) for name in golden.files if golden[name].dtype == np.float32}
    x, classes, angles = given["blk.x"], given["blk.cond"], model.rotary_table(var.config)[:, 69:78]
    pictures = torch.stack([paths.planes(golden[f"in{each}.resized_u8"]) for each in range(2)])
    net, z = var.diffloss.net, given["ref.z"]
    both = net(given["ref.x"][:6].expand(2, -1, -1), torch.tensor([333]), z.unflatten(0, (2, 6)))
    eps, share = refiner.guide(both, 6.0)
    found = {
        "resized": paths.resized(golden["in0.lr_u8"], var.config.pixels, var.config.pixels),
        "con.out": var.con_embedding(pictures * 2 - 1),
        "rope": model.rotary_table(var.config),
        "blk.attn_out": var.blocks[1].attn(x, angles, model.Cache(9)),
        "blk.ffn_out": var.blocks[1].ffn(x),
        "blk.out": var.blocks[1](x, classes, angles, model.Cache(9)),
        "blk0.out": var.blocks[0](x, classes, angles, model.Cache(9)),
        "head.out": var.head(var.head_nm(x, classes)),
        "ref.time_embed": net.time_embed(torch.from_numpy(golden["ref.t"])),
        "ref.net_out": net(given["ref.x"], torch.from_numpy(golden["ref.t"]), z),
        "ref.guided": torch.cat([eps, 2 * share - 1], dim=-1),
        "vae.recon_pm1": vae(given["vae.fhat_from_encode"][:1]),
        "vae.dec_probe_out": vae.decoder(vae.post_quant_conv(given["vae.dec_probe_in"])),
        "weights": paths.tile_weights(32),
        "phis6": np.array([vqvae.phi_of(each, 6) for each in range(6)]),
        "phis10": np.array([vqvae.phi_of(each, 10) for each in range(10)]),
        "schedule4": np.array(refiner.schedule(4)),
        "schedule10": np.array(refiner.schedule(10)),
    }
    found.update(refined(var, golden, z), **accumulated(vae, golden), **filtered(golden), **coloured(golden))
    return found


def refined(var, golden, z) -> dict:
    """The refiner's samples: guided, unguided, and the special case of exactly 1."""
    found = {}
    for cfg in (6, 1, 0):
        rows = z[None] if cfg == 1 else z.unflatten(0, (2, 6))
        name = f"ref.sample.cfg{cfg}"
        given = {"n.0": golden[f"{name}.init_noise"], "n.1": golden[f"{name}.step_noise"]}
        found[f"{name}.out"] = var.diffloss(rows, cfg, sampling.Draws(0, noise=stored(given, "n")))
    return found


def accumulated(vae, golden) -> dict:
    """What upstream's training feeds the transformer: the sum of scales so far, averaged to the next."""
    rows = []
    for row in range(2):
        latent, inputs = torch.zeros(1, 8, 8, 8), []
        for scale, side in enumerate((2, 3, 4, 6, 8)):
            latent = vae.quantize.add(latent, torch.from_numpy(golden[f"vae.idx.{scale}"][row]).long(), scale)
            small = torch.nn.functional.adaptive_avg_pool2d(latent, side)
            inputs.append(small.flatten(2).transpose(1, 2)[0])
        rows.append(torch.cat(inputs))
    return {"vae.var_input": torch.stack(rows)}


def filtered(golden) -> dict:
    logits, found = torch.from_numpy(golden["samp.logits"][0]), {}
    for top_k, top_p in ((0, 0.0), (5, 0.0), (0, 0.6), (5, 0.6), (1, 0.75), (20, 0.75)):
        found[f"samp.kept.k{top_k}_p{top_p}"] = sampling.kept(logits, top_k, top_p)
        chosen = sampling.Draws(5).choose(logits, sampling.Sampling(1.0, top_k, top_p))
        found[f"samp.idx.k{top_k}_p{top_p}"] = chosen
    return found


def coloured(golden) -> dict:
    result, reference = (paths.planes(golden[name]) for name in ("greedy.img_u8", "in0.resized_u8"))
    done = {fix: colour.fixed(result, reference, fix).permute(1, 2, 0).numpy() for fix in ("adain", "wavelet")}
    return {f"greedy.{fix}_u8": (each * np.float32(255)).astype(np.uint8) for fix, each in done.items()}


def small(request) -> dict:
    """The whole loop of the small network, greedy and sampled, scale by scale."""
    golden, found = np.load(request["golden"]), {}
    for run, how in (("greedy", sampling.Sampling()), ("sampled", sampling.Sampling(2.0, 20, 0.75))):
        network = opened(request)
        noise = {"n.0": golden[f"{run}.noise_init"], "n.1": golden[f"{run}.noise_steps"]}
        draws = Watched(17, noise=stored(noise, "n"))
        notes = {name: [] for name in ("x_in", "x_out", "logits_raw", "fhat")}
        watch(network.var.blocks[0], notes["x_in"], inputs=True)
        watch(network.var.blocks[-1], notes["x_out"])
        watch(network.var.head, notes["logits_raw"])
        add = network.vae.quantize.add
        network.vae.quantize.add = lambda *given, add=add, to=notes["fhat"]: to.append(add(*given)) or to[-1]
        final, image = [], []
        watch(network.var, final)
        watch(network.vae, image)
        before = torch.get_rng_state()
        knobs = paths.Knobs(how, "512")
        square = paths.enlarge(network, golden["in0.lr_u8"], knobs, draws)
        assert torch.equal(torch.get_rng_state(), before)
        found[f"{run}.shape"] = np.array(square.shape)
        for name, arrays in {**notes, "idx": draws.indices, "logits_guided": draws.logits}.items():
            found.update(listed(arrays, f"{run}.{name}"))
        found[f"{run}.fhat_final"], found[f"{run}.img01"] = final[0], vqvae.to_unit(torch.from_numpy(image[0]))
        found[f"{run}.img_u8"] = paths.levels(found[f"{run}.img01"][0])
    return found


def mid(request) -> dict:
    """The middle-sized network, by upstream's path for 512 pixels or for tiles."""
    picture, tiled = np.load(request["picture"]), request["tiled"]
    network, latents, blended, images, tokens = opened(request), [], [], [], []
    draws = Watched(noise=Noise(2 if tiled else 1))
    watch(network.var, latents)
    watch(network.var.con_embedding, tokens)
    watch(network.vae, blended, inputs=True)
    watch(network.vae, images)
    cfg = 7.0 if tiled else 6.0
    knobs = paths.Knobs(sampling.Sampling(cfg=cfg), "tiles" if tiled else "512")
    started = time.perf_counter()
    run = paths.enlarge if tiled else paths.one_square  # the latter: before it is resized to the picture's shape
    out = run(network, picture, knobs, draws)
    seconds = time.perf_counter() - started
    scales = len(network.var.config.sides)
    indices = [np.concatenate(draws.indices[at : at + scales]) for at in range(0, len(draws.indices), scales)]
    image = vqvae.to_unit(torch.from_numpy(images[0]))[0]
    levels = (out * np.float32(255)).astype(np.uint8)
    height, width = (paths.SCALE * each for each in picture.shape[:2])
    return {
        "idx": np.stack(indices), "latents": np.concatenate(latents), "blended": blended[0], "image": image,
        "con": tokens[0][0], "out": levels, "back": paths.resized(levels, height, width), "seconds": np.array(seconds),
        "peak_mb": np.array(peak_mb()),
    }  # fmt: skip


def loading(request) -> dict:
    """What loading says of files, by what is right or wrong with them; "" where they load, and load the same."""
    folder = Path(request["folder"])
    files = make_weights(folder, read_config(str(folder / "config.json")))
    good = {role: load_file(files[role]) for role in ("var", "vqvae")}
    wanted = [network.state_dict() for network in load_networks(files, CPU, lambda *_: None)]

    def says(name: str, **changed: str) -> None:
        try:
            found = [each.state_dict() for each in load_networks({**files, **changed}, CPU, lambda *_: None)]
        except BadInputError as error:
            said[name] = str(error)
            return
        same = all(torch.equal(a[key], b[key]) for a, b in zip(wanted, found, strict=True) for key in a)
        said[name] = "" if same else "other weights"

    said: dict[str, str] = {}
    for name, path in right(folder, good).items():
        says(name, **path)
    for name, path in wrong(folder, good, files).items():
        says(name, **path)
    return {"said": json.dumps(said)}


def right(folder: Path, good) -> dict:
    """Files as upstream's training and others leave them."""
    count = len(good["var"])
    more = {"lvl_1L": torch.arange(194)[None], "attn_bias_for_masking": torch.zeros(1, 1, 194, 194)}
    more.update({f"blocks.{each}.attn.zero_k_bias": torch.zeros(32) for each in range(3)})
    table = {"quantize.ema_vocab_hit_SV": torch.zeros(13, 128), "encoder.conv_in.bias": torch.zeros(8)}
    trainer = {
        "epoch": 3, "iter": 77, "args": {"depth": 24},
        "trainer": {
            "config": {"cfg": 4.0}, "vae_local": collections.OrderedDict({**good["vqvae"], **table}),
            "var_wo_ddp": collections.OrderedDict({**good["var"], **more}),
            "var_opt": {"state": {0: {"step": torch.tensor(9.0), "exp_avg": torch.ones(count)}}, "param_groups": [{}]},
        },
    }  # fmt: skip
    torch.save(trainer, folder / "trainer.pth")
    torch.save(good["var"], folder / "bare.pth")
    save_file({f"trainer.var_wo_ddp.{name}": each for name, each in good["var"].items()}, folder / "long.safetensors")
    save_file({f"vae_local.{name}": each for name, each in good["vqvae"].items()}, folder / "short.safetensors")
    trained = str(folder / "trainer.pth")
    return {
        "trainer": {"var": trained, "vqvae": trained},
        "bare": {"var": str(folder / "bare.pth")},
        "prefixes": {"var": str(folder / "long.safetensors"), "vqvae": str(folder / "short.safetensors")},
    }


def wrong(folder: Path, good, files) -> dict:
    """Files that must be refused."""
    var = good["var"]
    changed = {
        "missing": {name: each for name, each in var.items() if name != "blocks.1.attn.proj.bias"},
        "unexpected": {**var, "blocks.3.ffn.fc1.bias": torch.zeros(3)},
        "shape": {**var, "head.bias": torch.zeros(127)},
        "ints": {**var, "head.bias": torch.zeros(128, dtype=torch.int64)},
    }
    for name, tensors in changed.items():
        save_file(tensors, folder / name)
    torch.save(var, folder / "old", _use_new_zipfile_serialization=False)
    torch.save({"trainer": {"var_wo_ddp": var}, "args": argparse.Namespace(a=1)}, folder / "asks")
    torch.save(list(var.values()), folder / "list")
    torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "script")
    with (
        zipfile.ZipFile(folder / "bare.pth") as whole,
        zipfile.ZipFile(folder / "squeezed", "w", zipfile.ZIP_DEFLATED) as squeezed,
    ):
        for member in whole.namelist():
            squeezed.writestr(member, whole.read(member))
    (folder / "nothing").write_bytes(b"no weights" * 100)
    (folder / "cut").write_bytes(Path(files["var"]).read_bytes()[:-1000])
    names = [*changed, "old", "asks", "list", "script", "squeezed", "nothing", "cut"]
    found = {name: {"var": str(folder / name)} for name in names}
    for name, text in (("key", '{"deep": 3}'), ("number", '{"depth": 0}'), ("json", "{"), ("parts", '{"width": 30}')):
        (folder / f"config-{name}").write_text(text)
        found[f"config-{name}"] = {"config": str(folder / f"config-{name}")}
    return {**found, "swapped": {"var": files["vqvae"]}, "absent": {"vqvae": str(folder / "no such file")}}


def halves(request) -> dict:
    """What bf16 changes: the first scale's logits, before a code can flip; the decoder's picture of one latent."""
    whole, half = opened(request), opened(request, torch.bfloat16)
    picture = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    logits, pictures, latents = [], [], []
    for network in (whole, half):
        draws = Watched(3)
        latents.append(network.restored(picture, paths.Knobs(), draws))
        logits.append(draws.logits[0])
        with network.precision():
            pictures.append(vqvae.to_unit(network.vae(latents[0])).numpy())
    return {
        "logits": np.stack(logits), "pictures": np.stack(pictures), "latents": np.stack(latents),
        "codes": np.array([len(draws.indices), draws.indices[-1].size]),
    }  # fmt: skip


def shapes(request) -> dict:
    """Names and shapes of the released size."""
    with torch.device("meta"):
        networks = {"var": model.VARSR(Config()), "vqvae": vqvae.VQVAE(Config())}
    found = {
        role: {name: list(each.shape) for name, each in net.state_dict().items()} for role, net in networks.items()
    }
    return {"shapes": json.dumps(found)}


COMMANDS = {each.__name__: each for each in (weights, parts, small, mid, halves, loading, shapes)}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    with torch.inference_mode():
        found = COMMANDS[request["do"]](request)
    np.savez(sys.argv[2], **{name: np.asarray(each) for name, each in found.items()})


if __name__ == "__main__":
    main()
