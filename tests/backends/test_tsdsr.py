"""TSD-SR's worker, with small networks of upstream's making: golden pictures, any size, seeds and parameters."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tsdsr_files import FILES

from upx_protocol.arrays import to_float, view
from upx_protocol.messages import Failed, Load, Loaded, Ping, TileDone, Upscale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from conftest import Bench
    from upx.config import Settings
    from upx.specs import BackendSpec
    from upx_protocol.codec import Received
    from upx_protocol.messages import Message

    Tile = NDArray[Any]

pytestmark = [pytest.mark.shared, pytest.mark.shared_workers]
FIXES = {"nofix": "none", "wavelet": "wavelet", "adain": "adain"}
CASES = {
    "default_67x45": ("nofix", "wavelet", "adain"),
    "plain_37x29": ("nofix", "wavelet", "adain"),
    "plain_mode_37x29": ("nofix",),
    "upsized_17x13": ("nofix", "wavelet", "adain"),
    "tiled_53x41": ("nofix", "wavelet"),
}
PARAMETERS = ("process_size", "latent_tiled_size", "latent_tiled_overlap")
RNG = np.random.default_rng(5)
TILE = RNG.integers(0, 256, (24, 30, 3), np.uint8)
# Small networks, small pictures: a tile takes milliseconds.
SMALL = {"process_size": 64}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "tsdsr"


@pytest.fixture(scope="module")
def files(golden: Path) -> dict[str, str]:
    return {role: str(golden / path) for role, path in FILES.items()}


@pytest.fixture(scope="module")
def spec(settings: Settings) -> BackendSpec:
    from upx.catalog import Catalog

    return Catalog(settings).backend("tsdsr")


@pytest.fixture(scope="module")
def bench(
    spec: BackendSpec,
    backend_python: Callable[[str], Path],
    running_backend: Callable[[BackendSpec, Path], AbstractContextManager[Bench]],
) -> Iterator[Bench]:
    with running_backend(spec, backend_python("tsdsr")) as bench:
        yield bench


@pytest.fixture
def model(bench: Bench, files: dict[str, str]) -> Bench:
    """The worker with the plain model; a load that is there already costs nothing."""
    load(bench, files, "plain")
    return bench


def hear(bench: Bench, kinds: tuple[type[Message], ...]) -> Received:
    """The next message of those kinds. A host that says nothing for 5 seconds is taken for gone: so it says Ping."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if not bench.host.socket.poll(1000):
            bench.host.send(Ping(bench.host.number()))
        elif isinstance((received := bench.host.receive()).message, kinds):
            return received
    raise TimeoutError(bench.stderr)


def load(bench: Bench, files: dict[str, str], key: str, precision: str = "fp32", **params: Any) -> Loaded:
    bench.host.send(Load(bench.host.number(), key, "tsdsr", files=files, precision=precision, threads=1, params=params))
    loaded = hear(bench, (Loaded, Failed)).message
    assert isinstance(loaded, Loaded), loaded
    bench.host.load_id = loaded.load_id
    return loaded


def refused(bench: Bench, files: dict[str, str], model: str = "tsdsr", **more: Any) -> str:
    """What a load that must fail says."""
    bench.host.send(Load(bench.host.number(), "refused", model, files=files, **more))
    failed = hear(bench, (Loaded, Failed)).message
    assert isinstance(failed, Failed)
    assert failed.failure == "input"
    return failed.message


def enlarge(bench: Bench, *tiles: Tile, seeds: tuple[int, ...] = (), out: str = "uint8", **params: Any) -> list[Tile]:
    """One batch of a host that keeps its session and sends seeds."""
    number = bench.host.number()
    asked = Upscale(number, 0, bench.host.load_id, (), out_dtype=out, seeds=seeds, params={**SMALL, **params})
    bench.host.send(asked, arrays=tiles)
    found: dict[int, Tile] = {}
    while len(found) < len(tiles):
        received = hear(bench, (TileDone, Failed))
        assert isinstance(received.message, TileDone), received.message
        found[received.message.index] = view(received.message.bufs[0], received.buffers[0]).copy()
    return [found[index] for index in range(len(tiles))]


def failing(bench: Bench, tile: Tile, **params: Any) -> Failed:
    bench.host.submit([tile], **{**SMALL, **params})
    failed = hear(bench, (TileDone, Failed)).message
    assert isinstance(failed, Failed)
    return failed


def case_of(golden: Path, name: str) -> tuple[Tile, dict[str, Any]]:
    """The input of a case, and its parameters as they travel."""
    arguments = json.loads((golden / "cases.json").read_text())[name]["args"]
    params = {"process_size": 512, **{key: arguments[key] for key in PARAMETERS if key in arguments}}
    return np.load(golden / "cases" / name / "input.npy"), params


def off_by(result: Tile, other: Tile) -> float:
    return float(np.abs(result.astype(float) - other.astype(float)).mean())


# ---------------------------------------------------------------------------------------------- golden pictures


@pytest.mark.parametrize(("name", "method"), [(name, method) for name, methods in CASES.items() for method in methods])
def test_upstreams_pictures_come_back_over_the_wire(golden: Path, model: Bench, name: str, method: str) -> None:
    tile, params = case_of(golden, name)
    posterior = "mode" if "mode" in name else "sample"
    (result,) = enlarge(model, tile, seeds=(42,), posterior=posterior, colour_fix=FIXES[method], **params)
    off = np.abs(result.astype(int) - np.load(golden / "cases" / name / f"out_{method}.npy"))
    assert off.max() <= (4 if method == "adain" else 1)
    assert (off > 0).mean() < 0.003


def test_the_noise_of_a_file_takes_the_place_of_the_seeds(
    golden: Path, bench: Bench, files: dict[str, str], tmp_path: Path
) -> None:
    tile, params = case_of(golden, "plain_37x29")
    noise = golden / "cases" / "plain_37x29" / "tap_noise.npy"
    load(bench, files, "noise", noise_file=str(noise))
    (result,) = enlarge(bench, tile, seeds=(7,), colour_fix="none", **params)
    off = np.abs(result.astype(int) - np.load(golden / "cases" / "plain_37x29" / "out_nofix.npy"))
    assert off.max() <= 1
    assert "noise has the shape" in failing(bench, TILE).message
    bad = tmp_path / "noise.npy"
    bad.write_bytes(b"no array")
    assert "noise_file" in refused(bench, files, params={"noise_file": str(bad)})


def test_the_defaults_of_the_manifest_are_those_of_upstream_and_of_the_code(spec: BackendSpec, model: Bench) -> None:
    defaults = {each.name: each.default for each in spec.parameters if each.applies == "job"}
    assert defaults == {
        "process_size": 512, "latent_tiled_size": 64, "latent_tiled_overlap": 8, "vae_tile": 0, "posterior": "sample",
        "colour_fix": "wavelet", "depth": "8bit",
    }  # fmt: skip
    (told,) = enlarge(model, TILE, **defaults)
    (untold,) = enlarge(model, TILE, process_size=512)
    np.testing.assert_array_equal(told, untold)
    assert all("test" in each.help for each in spec.parameters if each.name == "noise_file")


# ---------------------------------------------------------------------------------------------- any size


@pytest.mark.parametrize("name", ["crash_odd_48x46", "crash_min49_60x49"])
def test_where_upstream_crashes_a_picture_comes_back_like_its_input(golden: Path, model: Bench, name: str) -> None:
    tile, params = case_of(golden, name)
    (result,) = enlarge(model, tile, **params)
    height, width = tile.shape[:2]
    assert result.shape == (4 * height, 4 * width, 3)
    # The fix gives these random networks the input's low frequencies; a shifted picture would not have them.
    small = result.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))
    assert off_by(small, tile) < off_by(small, np.roll(tile, 5, axis=1))


@pytest.mark.parametrize("height", [1, 2, 5, 15, 31, 50])
def test_every_size_comes_back_four_times_as_large(model: Bench, height: int) -> None:
    for width, fix in ((1, "adain"), (16, "none"), (33, "wavelet")):
        (result,) = enlarge(model, RNG.integers(0, 256, (height, width, 3), np.uint8), colour_fix=fix)
        assert result.shape == (4 * height, 4 * width, 3), (width, fix)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50)])
def test_the_smallest_pictures_come_back_with_all_defaults(model: Bench, height: int, width: int) -> None:
    (result,) = enlarge(model, RNG.integers(0, 256, (height, width, 3), np.uint8), process_size=512)
    assert result.shape == (4 * height, 4 * width, 3)


def test_a_thin_picture_is_not_enlarged_without_bounds(model: Bench) -> None:
    """As upstream does it, 600 x 4 would become 9600 x 64; mirrored to 600 x 16 it becomes 2400 x 64."""
    picture = np.tile(np.linspace(0, 255, 600).astype(np.uint8)[None, :, None], (4, 1, 3))
    tile = np.ascontiguousarray(picture.transpose(1, 0, 2))
    (result,) = enlarge(model, tile)
    assert result.shape == (2400, 16, 3)
    small = result.mean(axis=(1, 2)).reshape(600, 4).mean(axis=1)
    assert np.corrcoef(small, np.arange(600))[0, 1] > 0.97


def test_tiles_of_the_latent_smaller_than_their_overlap_end(model: Bench) -> None:
    for height, width in ((16, 70), (40, 18)):
        tile = RNG.integers(0, 256, (height, width, 3), np.uint8)
        (result,) = enlarge(model, tile, latent_tiled_size=16, latent_tiled_overlap=15)
        assert result.shape == (4 * height, 4 * width, 3)


# ---------------------------------------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_bytes_alone_again_and_in_a_batch(model: Bench) -> None:
    tiles = [RNG.integers(0, 256, (24, 30, 3), np.uint8) for _ in range(3)]
    alone = [enlarge(model, tile, seeds=(seed,))[0] for seed, tile in enumerate(tiles)]
    again = [enlarge(model, tile, seeds=(seed,))[0] for seed, tile in enumerate(tiles)]
    batched = enlarge(model, *tiles, seeds=(0, 1, 2))
    for index in range(3):
        assert alone[index].tobytes() == again[index].tobytes() == batched[index].tobytes()


def test_another_seed_is_another_draw_none_is_42_and_the_mode_takes_none(model: Bench) -> None:
    results = [enlarge(model, TILE, seeds=(seed,))[0] for seed in (42, 43, 2**63 - 1)]
    assert off_by(results[0], results[1]) > 0.5
    assert off_by(results[0], results[2]) > 0.5
    np.testing.assert_array_equal(enlarge(model, TILE)[0], results[0])
    modes = [enlarge(model, TILE, seeds=(seed,), posterior="mode")[0] for seed in (42, 43)]
    np.testing.assert_array_equal(*modes)


# ---------------------------------------------------------------------------------------------- precision, memory


def test_half_precision_is_close_to_the_whole(bench: Bench, files: dict[str, str]) -> None:
    load(bench, files, "plain")
    (whole,) = enlarge(bench, TILE, colour_fix="none")
    assert load(bench, files, "half", "bf16").precision == "bf16"
    (half,) = enlarge(bench, TILE, colour_fix="none")
    assert 0 < off_by(half, whole) < 4


def test_fp16_on_a_cpu_which_has_not_all_of_it_is_computed_in_fp32_and_said_so(
    bench: Bench, files: dict[str, str]
) -> None:
    load(bench, files, "plain")
    (whole,) = enlarge(bench, TILE)
    assert load(bench, files, "fp16", "fp16").precision == "fp32"
    np.testing.assert_array_equal(enlarge(bench, TILE)[0], whole)


def test_offloaded_networks_give_the_same_bytes_each_time(bench: Bench, files: dict[str, str]) -> None:
    load(bench, files, "plain")
    (resident,) = enlarge(bench, TILE)
    load(bench, files, "offload", offload=True)
    for _ in range(2):
        np.testing.assert_array_equal(enlarge(bench, TILE)[0], resident)


def test_tiles_of_the_vae_change_nothing_where_one_takes_all_and_little_in_means_elsewhere(model: Bench) -> None:
    picture = np.repeat(np.repeat(RNG.integers(0, 256, (6, 9, 3), np.uint8), 12, axis=0), 12, axis=1)
    how = {"posterior": "mode", "colour_fix": "none"}
    (whole,) = enlarge(model, picture, **how)
    np.testing.assert_array_equal(enlarge(model, picture, vae_tile=432, **how)[0], whole)
    (tiled,) = enlarge(model, picture, vae_tile=128, **how)
    assert 0 < off_by(tiled, whole) < 40  # networks of random numbers see no further than their tile
    assert tiled.shape == whole.shape
    small, other = (each.reshape(6, 48, 9, 48, 3).mean(axis=(1, 3)) for each in (whole, tiled))
    assert off_by(small, other) < 12


@pytest.mark.parametrize(("height", "width", "tile"), [(16, 128, 256), (128, 16, 256), (20, 90, 40), (64, 64, 64)])
def test_tiles_of_the_vae_may_be_longer_than_a_side_or_shorter_than_they_can_be(
    model: Bench, height: int, width: int, tile: int
) -> None:
    (result,) = enlarge(model, RNG.integers(0, 256, (height, width, 3), np.uint8), vae_tile=tile)
    assert result.shape == (4 * height, 4 * width, 3)


def test_an_overlap_that_leaves_nothing_of_a_tile_is_half_of_it(model: Bench) -> None:
    picture = RNG.integers(0, 256, (40, 60, 3), np.uint8)
    half, whole = (enlarge(model, picture, latent_tiled_size=8, latent_tiled_overlap=each)[0] for each in (4, 8))
    np.testing.assert_array_equal(half, whole)


# ---------------------------------------------------------------------------------------------- depth and dtypes


def test_a_float_tile_gives_what_its_levels_give(model: Bench) -> None:
    (from_levels,) = enlarge(model, TILE, out="float32")
    (from_floats,) = enlarge(model, to_float(TILE), out="float32")
    np.testing.assert_array_equal(from_levels, from_floats)
    (levels,) = enlarge(model, TILE)
    np.testing.assert_allclose(from_levels * 255, levels, atol=1e-4)


@pytest.mark.parametrize("fix", FIXES.values())
def test_without_8_bits_between_the_steps_a_result_is_finer_and_near(model: Bench, fix: str) -> None:
    (levels,) = enlarge(model, TILE, out="float32", colour_fix=fix)
    (floats,) = enlarge(model, TILE, out="float32", colour_fix=fix, depth="float")
    assert len(np.unique(levels)) <= 256 < len(np.unique(floats))
    assert off_by(255 * levels, np.clip(255 * floats, 0, 255)) < 2


# ---------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"posterior": "best"}, "sample, mode"),
        ({"colour_fix": "lab"}, "wavelet, adain, none"),
        ({"depth": "16"}, "8bit, float"),
        ({"latent_tiled_size": 80}, "72 positions"),
        ({"process_size": 60}, "process_size"),
        ({"vae_tile": -1}, "vae_tile"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(model: Bench, params: dict[str, Any], words: str) -> None:
    failed = failing(model, TILE, **params)
    assert failed.failure == "input"
    assert words in failed.message
    enlarge(model, TILE)


@pytest.mark.parametrize(
    ("name", "precision", "device", "words"),
    [
        ("tsdsr-gan", "fp32", "cpu", "no model 'tsdsr-gan' here"),
        ("tsdsr", "fp8", "cpu", "'fp8'"),
        ("tsdsr", "fp32", "mps", "cuda and cpu"),
        ("tsdsr", "fp32", "cuda:99", "finds no 'cuda:99'"),
    ],
)
def test_loads_of_what_is_not_there_are_refused_and_the_worker_serves_on(
    bench: Bench, files: dict[str, str], name: str, precision: str, device: str, words: str
) -> None:
    assert words in refused(bench, files, name, precision=precision, device=device)
    load(bench, files, "plain")


def test_a_file_of_another_role_is_refused_by_a_name(bench: Bench, files: dict[str, str]) -> None:
    for role, other in (("vae-lora", "transformer-lora"), ("base-vae", "base-transformer")):
        words = refused(bench, {**files, role: files[other]})
        assert f"{role}: " in words
        assert "is missing, and " in words
    load(bench, files, "plain")


# ---------------------------------------------------------------------------------------------- through the host

# What `upx models import` keeps of a bare tensor; run in the environment's interpreter.
CONVERTER = """
import sys, torch
from safetensors.torch import save_file
save_file({"tensor": torch.load(sys.argv[1], weights_only=True).contiguous()}, sys.argv[2])
"""


@pytest.fixture(scope="module")
def weights(
    spec: BackendSpec,
    files: dict[str, str],
    backend_python: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with the small networks under the manifest's names."""
    folder = tmp_path_factory.mktemp("weights")
    for asset in spec.model("tsdsr").assets:
        path = folder / asset.file
        path.parent.mkdir(exist_ok=True)
        if files[asset.role].endswith(".pt"):
            command = [backend_python("tsdsr"), "-I", "-c", CONVERTER, files[asset.role], path]
            subprocess.run(command, check=True, timeout=120)
        else:
            path.symlink_to(files[asset.role])
    return folder


@pytest.mark.parametrize("fix", ["nofix", "wavelet", "adain"])
def test_the_official_pictures_come_out_of_a_whole_job(
    golden: Path, settings: Settings, weights: Path, fix: str
) -> None:
    from upx.host import Host
    from upx.jobs import JobOptions
    from upx.routes import Request

    picture, params = case_of(golden, "plain_37x29")
    request = Request(
        backend="hermes",
        weights=weights,
        device="cpu",
        accept_licence=True,
        params={**params, "colour_fix": FIXES[fix]},
    )
    with Host(settings) as host, host.open(request) as session:
        done = session.run(picture, None, JobOptions(tile=None, seed=42))
    off = np.abs(done.output.astype(int) - np.load(golden / "cases" / "plain_37x29" / f"out_{fix}.npy"))
    assert off.max() <= (4 if fix == "adain" else 1)
    assert (off > 0).mean() < 0.003
    assert "Stability AI" in done.record.licence


def test_tiles_of_the_vae_bound_the_memory_that_a_large_picture_takes(
    spec: BackendSpec, backend_python: Callable[[str], Path], request: pytest.FixtureRequest, files: dict[str, str]
) -> None:
    with request.getfixturevalue("running_backend")(spec, backend_python("tsdsr")) as bench:
        load(bench, files, "plain")
        peaks = []
        for side, tile in ((64, 128), (256, 128), (256, 0)):
            enlarge(bench, np.zeros((side, side, 3), np.uint8), vae_tile=tile, colour_fix="none")
            (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{bench.process.pid}/status").read_text())
            peaks.append(int(line) / 1024)
    # Sixteen times the pixels cost what their own planes take; the networks' are no larger than a tile's.
    small, large, whole = peaks
    assert large - small < 100
    assert whole - large > 200
