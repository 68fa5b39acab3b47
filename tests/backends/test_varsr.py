"""VARSR's worker and its files: tiles of any size, seeds, parameters, and what is refused. Weights are made up."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from upx_protocol.arrays import to_float, view
from upx_protocol.messages import Failed, Load, Loaded, TileDone, Upscale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Bench
    from upx.config import Settings
    from upx.specs import BackendSpec

    Kit = Callable[..., dict[str, Any]]

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = ROOT / "backends" / "upx_backends" / "varsr" / "layouts"
# Small enough to draw 128 pixels in milliseconds: a tile is 32 x 32 then.
SMALL = {
    "sides": [1, 2, 3, 4, 6, 8], "vocabulary": 128, "latent": 8, "vae_width": 8, "groups": 4, "width": 32, "depth": 3,
    "heads": 2, "conditioner": [8, 12, 16, 24, 40], "refiner_width": 48, "refiner_depth": 2, "refiner_steps": 4,
}  # fmt: skip
RNG = np.random.default_rng(11)
TILE = RNG.integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def kit(backend_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """``kit("parts", ...)``: what that command of varsr_kit.py gives."""
    folder, python = tmp_path_factory.mktemp("kit"), backend_python("varsr")

    def run(do: str, **request: object) -> dict[str, Any]:
        asked, result = folder / "request.json", folder / "result.npz"
        asked.write_text(json.dumps({"do": do, **request}))
        # Their own code, ours beside it, and nothing of the tests' environment.
        folders = f"{ROOT / 'protocol'}:{ROOT / 'backends'}"
        environ = {"PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": folders}
        command = [python, "-P", Path(__file__).with_name("varsr_kit.py"), asked, result]
        done = subprocess.run(command, capture_output=True, check=False, cwd=folder, env=environ, timeout=380)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        with np.load(result) as found:
            return dict(found)

    return run


@pytest.fixture(scope="module")
def said(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What loading says of every file of the kit's."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "config.json").write_text(json.dumps(SMALL))
    return json.loads(str(kit("loading", folder=str(folder))["said"]))


@pytest.fixture(scope="module")
def spec(settings: Settings) -> BackendSpec:
    from upx.catalog import Catalog

    return Catalog(settings).backend("varsr")


@pytest.fixture(scope="module")
def files(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return weights_of(SMALL, kit, tmp_path_factory.mktemp("weights"))


def weights_of(sizes: dict[str, Any], kit: Kit, folder: Path) -> dict[str, str]:
    """Files of the recipe's weights in those sizes, by role."""
    (folder / "config.json").write_text(json.dumps(sizes))
    kit("weights", folder=str(folder))
    return {path.stem: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def bench(
    spec: BackendSpec, files: dict[str, str], backend_python: Callable[[str], Path], request: pytest.FixtureRequest
) -> Iterator[Bench]:
    running = request.getfixturevalue("running_backend")
    with running(spec, backend_python("varsr")) as bench:
        bench.host.load("varsr", files=files)
        yield bench


def upscale(bench: Bench, *tiles: np.ndarray, seeds: tuple[int, ...] = (), **params: Any) -> list[np.ndarray]:
    """The tiles' results, with a seed each."""
    host, number = bench.host, bench.host.number()
    dtype = params.pop("out_dtype", "uint8")
    request = Upscale(number, 0, host.load_id, (), out_dtype=dtype, seeds=seeds, params=params)
    host.send(request, arrays=[np.ascontiguousarray(tile) for tile in tiles])
    found: dict[int, np.ndarray] = {}
    while len(found) < len(tiles):
        received = host.receive()
        assert not isinstance(received.message, Failed), received.message
        if isinstance(received.message, TileDone):
            (buffer,) = received.message.bufs
            found[received.message.index] = view(buffer, received.buffers[0]).copy()
    return [found[index] for index in range(len(tiles))]


def refused(bench: Bench, **params: Any) -> str:
    bench.host.submit([TILE], **params)
    failed = bench.host.expect(Failed)
    assert failed.failure == "input"
    return failed.message


# ---------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("mode", ["auto", "512", "tiles"])
def test_every_size_comes_back_four_times_as_large_in_every_mode(bench: Bench, mode: str) -> None:
    for height, width in ((1, 1), (3, 50), (50, 3), (17, 16), (32, 32), (33, 40)):
        (result,) = upscale(bench, RNG.integers(0, 256, (height, width, 3), np.uint8), mode=mode)
        assert result.shape == (4 * height, 4 * width, 3)


def test_a_small_tile_is_mirrored_to_a_whole_one_and_a_large_one_is_done_in_tiles(bench: Bench) -> None:
    tile = TILE[:20, :25]
    mirrored = np.pad(tile, ((0, 12), (0, 7), (0, 0)), mode="reflect")
    shown, whole = (upscale(bench, each, colour_fix="none")[0] for each in (tile, mirrored))
    np.testing.assert_array_equal(shown, whole[:80, :100])
    # What is mirrored is not there for the colours: those are of the tile alone.
    (coloured,) = upscale(bench, tile)
    assert np.abs(coloured.mean(axis=(0, 1)) - tile.mean(axis=(0, 1))).max() < 3
    large = RNG.integers(0, 256, (33, 40, 3), np.uint8)
    np.testing.assert_array_equal(upscale(bench, large)[0], upscale(bench, large, mode="tiles")[0])
    assert (upscale(bench, large)[0] != upscale(bench, large, mode="512")[0]).any()


def test_one_seed_gives_one_picture_alone_again_and_in_a_batch_and_another_gives_another(bench: Bench) -> None:
    tiles = [RNG.integers(0, 256, (30, 32, 3), np.uint8) for _ in range(3)]
    alone = [upscale(bench, tile, seeds=(seed,))[0] for seed, tile in enumerate(tiles)]
    again = [upscale(bench, tile, seeds=(seed,))[0] for seed, tile in enumerate(tiles)]
    batched = upscale(bench, *tiles, seeds=(0, 1, 2))
    for index in range(3):
        np.testing.assert_array_equal(alone[index], again[index])
        np.testing.assert_array_equal(alone[index], batched[index])
    assert (upscale(bench, tiles[0], seeds=(7,))[0] != alone[0]).any()
    np.testing.assert_array_equal(upscale(bench, tiles[0])[0], alone[0])  # none is the seed 0
    sampled = [upscale(bench, tiles[0], seeds=(seed,), top_k=0, top_p=0.9)[0] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(sampled[0], sampled[1])
    assert (sampled[0] != sampled[2]).any()


@pytest.mark.parametrize("fix", ["adain", "wavelet", "none"])
def test_integers_are_the_floats_truncated_and_a_float_tile_gives_what_its_integers_give(
    bench: Bench, fix: str
) -> None:
    (levels,) = upscale(bench, TILE, colour_fix=fix)
    (floats,) = upscale(bench, TILE, colour_fix=fix, out_dtype="float32")
    np.testing.assert_array_equal(levels, np.floor(np.clip(floats * np.float32(255), 0, 255)))
    np.testing.assert_array_equal(floats, upscale(bench, to_float(TILE), colour_fix=fix, out_dtype="float32")[0])


def test_adain_gives_the_picture_the_colours_of_its_tile(bench: Bench) -> None:
    tinted = (TILE // 4 + np.array([120, 60, 10], np.uint8)).astype(np.uint8)
    fixed, raw = (upscale(bench, tinted, colour_fix=fix)[0].mean(axis=(0, 1)) for fix in ("adain", "none"))
    np.testing.assert_allclose(fixed, tinted.mean(axis=(0, 1)), atol=1.5)
    assert np.abs(raw - tinted.mean(axis=(0, 1))).max() > 10


def test_a_parameter_out_of_its_range_is_refused_by_name_and_the_worker_serves_on(bench: Bench) -> None:
    for name, value in (("cfg", -1.0), ("cfg", "6"), ("top_k", -1), ("top_k", 1.5), ("top_p", 1.5), ("mode", "256")):
        assert name in refused(bench, **{name: value})
    assert "colour_fix" in refused(bench, colour_fix="hue")
    upscale(bench, TILE, cfg=0.0)


def test_the_manifest_says_of_parameters_what_the_worker_takes(bench: Bench, spec: BackendSpec) -> None:
    for parameter in spec.parameters:
        for value in (parameter.default, *parameter.choices) if parameter.applies == "job" else ():
            upscale(bench, TILE[:2, :2], **{parameter.name: value})
        for value in (parameter.minimum, parameter.maximum):
            if value is not None:
                number = int(value) if parameter.kind == "int" else float(value)
                upscale(bench, TILE[:2, :2], **{parameter.name: number})
    usual = {each.name: each.default for each in spec.parameters if each.applies == "job"}
    np.testing.assert_array_equal(upscale(bench, TILE)[0], upscale(bench, TILE, **usual)[0])


def test_noise_of_a_file_is_refused_where_it_does_not_fit(bench: Bench, files: dict[str, str], tmp_path: Path) -> None:
    host, bad, short = bench.host, tmp_path / "bad.npy", tmp_path / "short.npy"
    bad.write_bytes(b"no array")
    np.save(tmp_path / "flat.npy", np.zeros((3, 8), np.float32))
    for path, words in ((bad, "holds no array"), (tmp_path / "flat.npy", "three sides")):
        host.send(Load(host.number(), path.stem, "varsr", files=files, params={"noise_file": str(path)}))
        assert words in host.expect(Failed).message
    np.save(short, np.zeros((2, 64, 8), np.float32))
    loaded = bench.host.load("varsr", key="noise", files=files, noise_file=str(short))
    assert loaded.scale == 4
    assert "draw 2 needs [64, 8]" in refused(bench)
    bench.host.load("varsr", files=files)


@pytest.mark.parametrize(("role", "name"), [("var", "head.bias"), ("vqvae", "post_quant_conv.bias")])
def test_values_that_are_no_numbers_are_an_error_and_no_picture(
    bench: Bench, files: dict[str, str], tmp_path: Path, role: str, name: str
) -> None:
    damaged = tmp_path / f"{role}.safetensors"
    content = bytearray(Path(files[role]).read_bytes())
    length = int.from_bytes(content[:8], "little")
    begin = 8 + length + json.loads(content[8 : 8 + length])[name]["data_offsets"][0]
    content[begin : begin + 4] = np.float32(np.nan).tobytes()
    damaged.write_bytes(content)
    bench.host.load("varsr", key="nan", files={**files, role: str(damaged)})
    assert "values that are no numbers; the weights are damaged" in refused(bench)
    bench.host.load("varsr", files=files)


def test_bf16_stays_near_fp32_until_a_code_flips(kit: Kit, files: dict[str, str]) -> None:
    found = kit("halves", files=files)
    whole, half = found["logits"]
    assert 0 < np.abs(half - whole).max() < 0.1 * whole.std()
    whole, half = found["pictures"]
    assert 0 < np.abs(half - whole).max() < 0.05
    assert found["latents"].dtype == np.float32
    assert np.isfinite(found["latents"]).all()


def test_bf16_is_served_and_gives_one_picture_for_one_seed(bench: Bench, files: dict[str, str]) -> None:
    host = bench.host
    host.send(Load(host.number(), "half", "varsr", files=files, precision="bf16"))
    loaded = host.expect(Loaded)
    assert loaded.precision == "bf16"
    whole, host.load_id = host.load_id, loaded.load_id
    for mode in ("auto", "tiles"):
        first, second = (upscale(bench, TILE, seeds=(5,), mode=mode)[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.std() > 1
    host.load_id = whole
    bench.host.load("varsr", files=files)


# ---------------------------------------------------------------------------------------------- files


def test_what_a_cpu_has_no_use_for_is_not_pretended(bench: Bench, files: dict[str, str]) -> None:
    bench.host.send(Load(bench.host.number(), "mps", "varsr", files=files, device="mps"))
    assert "mps" in bench.host.expect(Failed).message
    bench.host.send(Load(bench.host.number(), "fp8", "varsr", files=files, precision="fp8"))
    assert "fp32, fp16, bf16, not in 'fp8'" in bench.host.expect(Failed).message
    bench.host.send(Load(bench.host.number(), "fp16", "varsr", files=files, precision="fp16"))
    assert bench.host.expect(Loaded).precision == "fp32"
    loaded = bench.host.load("varsr", files=files)
    assert (loaded.scale, loaded.device, loaded.precision) == (4, "cpu", "fp32")
    assert (loaded.minimum, loaded.multiple_of, loaded.square, loaded.fixed) == (1, 1, False, 0)


def test_no_weights_are_refused_as_bad_input_and_the_worker_serves_on(
    bench: Bench, files: dict[str, str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no weights" * 100)
    for role in ("var", "vqvae", "config"):
        bench.host.send(Load(bench.host.number(), f"bad {role}", "varsr", files={**files, role: str(bad)}))
        failed = bench.host.expect(Failed)
        assert failed.failure == "input"
        assert "bad.safetensors" in failed.message
    bench.host.send(Load(bench.host.number(), "none", "varsr-x9", files=files))
    assert bench.host.expect(Failed).failure == "input"
    bench.host.load("varsr", files=files)
    upscale(bench, TILE)


@pytest.mark.parametrize("form", ["trainer", "bare", "prefixes"])
def test_weights_load_the_same_from_every_form_they_are_found_in(said: dict[str, str], form: str) -> None:
    assert said[form] == ""


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("missing", "missing: blocks.1.attn.proj.bias is missing (1 in all)"),
        ("unexpected", "unexpected: blocks.3.ffn.fc1.bias is none of this network's tensors"),
        ("shape", "shape: head.bias has the shape [127] and must have [128]"),
        ("ints", "ints: head.bias holds torch.int64, and no floats"),
        ("swapped", "vqvae.safetensors: pos_start is missing"),
        ("absent", "no file for 'vqvae'"),
        ("old", "old is neither safetensors nor a zip of tensors"),
        ("nothing", "nothing is neither safetensors nor a zip of tensors"),
        ("cut", "cut is neither safetensors nor a zip of tensors"),
        ("asks", "Unsupported class argparse.Namespace"),
        ("list", "list holds a list"),
        ("script", "script is a TorchScript archive"),
        ("squeezed", "squeezed was compressed after torch saved it"),
        ("config-key", "unknown key 'deep'"),
        ("config-number", "depth must be a whole number above zero, not 0"),
        ("config-json", "config-json cannot be read"),
        ("config-parts", "width must be a multiple of 4 * heads"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_first_wrong_name(said: dict[str, str], file: str, message: str) -> None:
    assert message in said[file]
    assert "\n" not in said[file]


def test_the_network_has_every_tensor_of_the_published_files_that_the_host_keeps(kit: Kit) -> None:
    from test_layouts import expand

    shapes = json.loads(str(kit("shapes")["shapes"]))
    for role in ("var", "vqvae"):
        layout = json.loads((LAYOUTS / f"{role}.json").read_text())
        left = {"lvl_1L"} | {name for name in expand(f"varsr/layouts/{role}.json") if name.endswith("zero_k_bias")}
        listed = {name: shape for name, shape in expand(f"varsr/layouts/{role}.json").items() if name not in left}
        kept = {name: shape for name, shape in listed.items() if not matches(name, layout["ignored"])}
        assert shapes[role] == kept


def matches(name: str, patterns: list[str]) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in patterns)


def test_the_host_gives_a_tiled_picture_its_colours_back_once(
    files: dict[str, str], settings: Settings, backend_python: Callable[[str], Path], tmp_path: Path
) -> None:
    from PIL import Image

    from upx.colour import adain, from_unit, statistics
    from upx.host import Host
    from upx.jobs import JobOptions
    from upx.routes import Request

    backend_python("varsr")
    for role, name in (("var", "VARSR.safetensors"), ("vqvae", "VQVAE.safetensors"), ("config", "config.json")):
        (tmp_path / name).symlink_to(files[role])
    picture = RNG.integers(0, 128, (40, 150, 3), np.uint8)
    results: dict[str, np.ndarray] = {}
    with Host(settings) as host:
        # In floats what was blended comes back as it is; with a fix it is rounded once, after it.
        for fix, given in (("none", picture / np.float32(255)), ("adain", picture)):
            request = Request(backend="zeus", weights=tmp_path, device="cpu", workers=1, params={"colour_fix": fix})
            with host.open(request) as session:
                done = session.run(given, None, JobOptions(seed=3))
                results[fix] = done.output
                assert done.record.tiles > 1
                assert done.record.seed == 3
                assert done.record.licence == "MIT"
    assert results["none"].shape == (160, 600, 3)
    enlarged = np.asarray(Image.fromarray(picture).resize((600, 160), Image.Resampling.BICUBIC))
    fixed = adain(results["none"], statistics([results["none"]]), statistics([enlarged]))
    off = results["adain"].astype(int) - from_unit(fixed, np.dtype(np.uint8), truncate=True)
    assert np.abs(off).max() <= 1  # a float may lie a hair to either side of a level
    assert (off != 0).mean() < 0.001
