"""HiT-SR through the worker loop, in its own environment: upstream's answers, and what every backend promises."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hitsr_kit as kit
import numpy as np
import pytest
from PIL import Image

from upx.tiling import plan_tiles
from upx_protocol.arrays import to_float
from upx_protocol.messages import Failed, Load, Loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from conftest import Bench
    from upx.config import Settings
    from upx.specs import BackendSpec

pytestmark = pytest.mark.shared_workers

RNG = np.random.default_rng(11)
TRAINED = "hit_srf_x4_ntire2025_team54.pth"
TOLERANCE = 2e-5
MOST_MB = 700


@pytest.fixture(scope="module")
def spec(settings: Settings) -> BackendSpec:
    from upx.catalog import Catalog

    return Catalog(settings).backend("hitsr")


@pytest.fixture(scope="module")
def python(backend_python: Callable[[str], Path]) -> Path:
    return backend_python("hitsr")


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, spec: BackendSpec, python: Path) -> Iterator[Bench]:
    with request.getfixturevalue("running_backend")(spec, python) as bench:
        yield bench


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """``made(family, scale)``: a file of the recipe's weights."""
    folder, paths = tmp_path_factory.mktemp("made"), {}

    def make(family: str, scale: int) -> Path:
        if (family, scale) not in paths:
            path = folder / f"{family}-x{scale}.safetensors"
            paths[family, scale] = kit.write_safetensors(path, kit.recipe(family, scale))
        return paths[family, scale]

    return make


def load(bench: Bench, model: str, weights: Path, config: Path | None = None) -> Any:
    files = {"weights": str(weights)} | ({"config": str(config)} if config else {})
    return bench.host.load(model, key=f"{model} {weights}", files=files)


def floats(bench: Bench, picture: NDArray[Any]) -> NDArray[np.float32]:
    return bench.host.upscale([picture], out_dtype="float32")[0]


def farthest(a: NDArray[Any], b: NDArray[Any]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def inside(python: Path, task: str, *arguments: str | Path) -> Any:
    """What hitsr_inside.py says in the backend's interpreter."""
    script = Path(__file__).with_name("hitsr_inside.py")
    folders = [kit.ROOT / "backends", kit.ROOT / "protocol"]
    done = subprocess.run(
        [python, "-I", "-W", "error", script, task, *folders, *arguments],
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


# ---------------------------------------------------------------------------------------------- upstream's answers


def test_networks_as_released_give_the_samples_of_what_upstream_gives(
    bench: Bench, made: Callable[[str, int], Path]
) -> None:
    samples = kit.Samples()
    for network in samples.networks:
        family, scale = network["family"], network["scale"]
        load(bench, f"hitsr-{family}-x{scale}", made(family, scale))
        result = floats(bench, samples.picture)
        assert samples.farthest(network, result) <= samples.tolerance, (family, scale)


@pytest.mark.shared
@pytest.mark.parametrize("family", kit.FAMILIES)
def test_networks_of_other_sizes_give_what_upstream_gives(bench: Bench, shared: Path, family: str) -> None:
    name, folder = f"hit_{family}_tiny_x2", shared / "golden" / "hitsr"
    load(bench, f"hitsr-{family}-x2", folder / f"{name}.safetensors", folder / f"{name}.json")
    result = floats(bench, np.load(folder / "input_37x29.npy"))
    assert farthest(result, np.load(folder / f"{name}_out_37x29.npy")) <= TOLERANCE


@pytest.mark.shared
@pytest.mark.parametrize("family", kit.FAMILIES)
@pytest.mark.parametrize("scale", [2, 4])
def test_networks_as_released_give_what_upstream_gives(
    bench: Bench, made: Callable[[str, int], Path], shared: Path, family: str, scale: int
) -> None:
    folder = shared / "golden" / "hitsr"
    load(bench, f"hitsr-{family}-x{scale}", made(family, scale))
    result = floats(bench, np.load(folder / "input_48x40.npy"))
    with np.load(folder / f"hit_{family}_x{scale}_out_48x40.npz") as golden:
        assert farthest(result, golden["output"]) <= TOLERANCE


@pytest.mark.shared
def test_trained_weights_give_what_upstream_gives_and_its_picture(bench: Bench, shared: Path) -> None:
    load(bench, "hitsr-srf-x4", shared / "data" / "hitsr" / TRAINED)
    with np.load(shared / "golden" / "hitsr" / "real_hit_srf_x4_team54.npz") as golden:
        assert farthest(floats(bench, golden["input"]), golden["output"]) <= TOLERANCE
        (levels,) = bench.host.upscale([golden["input"]])
        # A value that lies on the edge between two levels may fall to either side.
        assert (levels != golden["png"]).mean() < 1e-4
        assert farthest(levels.astype(int), golden["png"].astype(int)) <= 1


@pytest.mark.shared
@pytest.mark.parametrize("crop", [None, (120, 40, 376, 296)])
def test_trained_weights_restore_a_photograph_by_3_db_more_than_bicubic(
    bench: Bench, shared: Path, photo: Callable[[str], Path], crop: tuple[int, int, int, int] | None
) -> None:
    with Image.open(photo("astronaut.png")) as picture:
        truth = picture.convert("RGB").crop(crop or (0, 0, 512, 512))
    small = truth.resize((truth.width // 4, truth.height // 4), Image.Resampling.BICUBIC)
    load(bench, "hitsr-srf-x4", shared / "data" / "hitsr" / TRAINED)
    (result,) = bench.host.upscale([np.asarray(small)])
    bicubic = np.asarray(small.resize(truth.size, Image.Resampling.BICUBIC))
    assert kit.psnr(result, np.asarray(truth), 4) >= kit.psnr(bicubic, np.asarray(truth), 4) + 3


# ---------------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize("family", kit.FAMILIES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_size_down_to_1_x_1_comes_back_times_its_scale(
    bench: Bench, made: Callable[[str, int], Path], family: str, scale: int
) -> None:
    loaded = load(bench, f"hitsr-{family}-x{scale}", made(family, scale))
    assert (loaded.scale, loaded.minimum, loaded.multiple_of, loaded.square, loaded.fixed) == (scale, 1, 1, False, 0)
    for height, width in ((1, 1), (2, 1), (3, 50), (17, 16)):
        (result,) = bench.host.upscale([RNG.integers(0, 256, (height, width, 3), np.uint8)])
        assert result.shape == (height * scale, width * scale, 3)


@pytest.mark.parametrize("family", kit.FAMILIES)
def test_a_tile_gives_the_same_bytes_alone_and_in_a_batch_and_as_floats(
    bench: Bench, made: Callable[[str, int], Path], family: str
) -> None:
    load(bench, f"hitsr-{family}-x2", made(family, 2))
    tiles = [RNG.integers(0, 256, (40, 33, 3), np.uint8) for _ in range(2)]
    alone = [floats(bench, tile).copy() for tile in tiles]
    for one, other in zip(alone, bench.host.upscale(tiles, out_dtype="float32"), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(alone[0], floats(bench, to_float(tiles[0])))
    # Unclamped as floats, clamped and rounded to even as levels.
    assert alone[0].min() < 0
    (levels,) = bench.host.upscale([tiles[0]])
    np.testing.assert_array_equal(levels, np.clip(np.rint(alone[0] * np.float32(255)), 0, 255))


@pytest.mark.shared
def test_tiles_as_the_manifest_cuts_them_give_the_whole_picture_within_a_level(
    bench: Bench, spec: BackendSpec, shared: Path, photo: Callable[[str], Path]
) -> None:
    load(bench, "hitsr-srf-x4", shared / "data" / "hitsr" / TRAINED)
    with Image.open(photo("coffee.png")) as opened:
        picture = np.asarray(opened.convert("RGB"))[180:244, :576].copy()
    (whole,) = bench.host.upscale([picture])
    tiling, align = spec.tiling, spec.model("hitsr-srf-x4").align
    plan = plan_tiles(64, 576, tile=tiling.tile, overlap=tiling.overlap, size=spec.size, align=align)
    assert [box.left for box in plan.boxes] == [0, 384]
    tiled = np.zeros_like(whole)
    for box, core in zip(plan.boxes, plan.cores, strict=True):
        tile = np.ascontiguousarray(picture[:, box.left : box.right])
        (large,) = bench.host.upscale([tile])
        left, right = core.left * 4, core.right * 4
        tiled[:, left:right] = large[:, left - box.left * 4 : right - box.left * 4]
    assert farthest(tiled.astype(int), whole.astype(int)) <= 1


def test_what_the_machine_or_the_backend_has_not_is_refused_and_the_worker_serves_on(
    bench: Bench, made: Callable[[str, int], Path]
) -> None:
    files = {"weights": str(made("sir", 2))}
    for wrong, words in (
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"files": {}}, "no file for 'weights'"),
        ({"precision": "int4"}, "no precision 'int4'"),
    ):
        bench.host.send(Load(bench.host.number(), str(wrong), **{"model": "hitsr-sir-x2", "files": files, **wrong}))
        failed = bench.host.expect(Failed)
        assert (failed.failure, failed.retryable) == ("input", False)
        assert words in failed.message
    bench.host.send(Load(bench.host.number(), "half", "hitsr-sir-x2", files=files, precision="fp16"))
    assert bench.host.expect(Loaded).precision == "fp32"
    load(bench, "hitsr-sir-x2", made("sir", 2))
    bench.host.upscale([np.zeros((8, 8, 3), np.uint8)])


def test_a_worker_stays_below_700_mb(
    request: pytest.FixtureRequest, spec: BackendSpec, python: Path, made: Callable[[str, int], Path]
) -> None:
    with request.getfixturevalue("running_backend")(spec, python) as bench:
        load(bench, "hitsr-sng-x4", made("sng", 4))
        for _ in range(2):
            bench.host.upscale([np.zeros((128, 128, 3), np.uint8)])
        status = Path(f"/proc/{bench.process.pid}/status").read_text()
    (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    assert int(peak.split()[1]) / 1024 < MOST_MB


def test_other_ways_to_compute_it_are_as_near_as_they_should_be(python: Path, made: Callable[[str, int], Path]) -> None:
    found = inside(python, "ways", *[made(family, 4) for family in kit.FAMILIES])
    assert max(found["plain"] + found["threads"]) <= TOLERANCE
    assert max(found["fp16"]) < 1e-3
    assert max(found["bf16"]) < 2 / 255


@pytest.mark.shared
def test_half_precision_holds_the_large_numbers_of_trained_weights(python: Path, shared: Path) -> None:
    found = inside(python, "ways", shared / "data" / "hitsr" / TRAINED)
    assert max(found["fp16"]) < 1e-3
    assert max(found["bf16"]) < 2 / 255
