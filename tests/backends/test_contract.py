"""What every backend promises, asked of each of its models through the worker loop in its own environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from upx_protocol.arrays import to_float
from upx_protocol.messages import Failed, Load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Bench
    from upx.config import Settings
    from upx.specs import BackendSpec

    Worker = tuple[BackendSpec, Bench, dict[str, dict[str, str]]]

RNG = np.random.default_rng(7)
# Smooth, so that a network's answer is near the picture itself; the level says if a channel or the range is wrong.
GRADIENT = np.linspace(20, 235, 40, dtype=np.float32)
PICTURE = np.stack(
    [np.add.outer(GRADIENT[:24] / 2, GRADIENT / 2), np.full((24, 40), 60.0), np.add.outer(0 * GRADIENT[:24], GRADIENT)],
    axis=2,
).astype(np.uint8)


@pytest.fixture(scope="module", params=["nearest", "span", "realesrgan"])
def worker(
    request: pytest.FixtureRequest, settings: Settings, backend_python: Callable[[str], Path]
) -> Iterator[Worker]:
    """A backend's worker, and its models' files by role."""
    from upx.assets.find import Finder, Found
    from upx.catalog import Catalog
    from upx.venvs.builder import EnvBuilder

    running = request.getfixturevalue("running_backend")
    spec = Catalog(settings).backend(request.param)
    python = Path(sys.executable)
    files: dict[str, dict[str, str]] = {model.name: {} for model in spec.models}
    if any(model.assets for model in spec.models):
        python = backend_python(request.param)
        venv = EnvBuilder(settings).find(spec.env)
        assert venv is not None
        for model in spec.models:
            found = Finder(settings, spec, site_packages=venv.site_packages).find_all(model)
            assert all(isinstance(each, Found) for each in found)
            files[model.name] = {asset.role: str(each.path) for asset, each in zip(model.assets, found, strict=True)}
    with running(spec, python) as bench:
        yield spec, bench, files


def models(worker: Worker) -> Iterator[tuple[Any, Bench]]:
    """Each model in turn, loaded."""
    spec, bench, files = worker
    for model in spec.models:
        loaded = bench.host.load(model.name, key=model.name, files=files[model.name])
        assert loaded.scale == model.scale, model.name
        size = spec.size
        assert (loaded.minimum, loaded.multiple_of) == (size.minimum, size.multiple_of), model.name
        assert (loaded.square, loaded.fixed) == (size.square, size.fixed), model.name
        yield model, bench


def test_every_model_loads_and_every_size_down_to_1_x_1_comes_back_times_its_scale(worker: Worker) -> None:
    for model, bench in models(worker):
        for height, width in ((1, 1), (3, 50), (50, 3), (17, 16)):
            (result,) = bench.host.upscale([RNG.integers(0, 256, (height, width, 3), np.uint8)])
            assert result.shape == (height * model.scale, width * model.scale, 3), model.name


def test_a_picture_keeps_its_channels_and_its_levels(worker: Worker) -> None:
    for model, bench in models(worker):
        (result,) = bench.host.upscale([PICTURE])
        small = result.reshape(24, model.scale, 40, model.scale, 3).mean(axis=(1, 3))
        off = np.abs(small - PICTURE)[4:-4, 4:-4].mean(axis=(0, 1))
        # GANs and the weights behind a licence are trained for looks and shift colours a little.
        bound = 12 if model.restricted or model.kind == "gan" else 2
        assert (off < bound).all(), (model.name, off)


def test_the_same_tile_gives_the_same_bytes_alone_again_and_in_a_batch(worker: Worker) -> None:
    tiles = [RNG.integers(0, 256, (40, 33, 3), np.uint8) for _ in range(3)]
    for model, bench in models(worker):
        alone = [bench.host.upscale([tile])[0].copy() for tile in tiles]
        batched = bench.host.upscale(tiles)
        for index in range(3):
            np.testing.assert_array_equal(alone[index], batched[index], err_msg=model.name)


def test_integers_are_the_floats_rounded_and_clamped(worker: Worker) -> None:
    tile = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    for model, bench in models(worker):
        (levels,) = bench.host.upscale([tile])
        (floats,) = bench.host.upscale([tile], out_dtype="float32")
        (deep,) = bench.host.upscale([tile], out_dtype="uint16")
        assert floats.dtype == np.float32
        np.testing.assert_array_equal(levels, np.clip(np.rint(floats * np.float32(255)), 0, 255), err_msg=model.name)
        np.testing.assert_allclose(deep / 65535, np.clip(floats, 0, 1), atol=1 / 65535)


def test_a_float_tile_gives_what_its_integers_give(worker: Worker) -> None:
    tile = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    for model, bench in models(worker):
        (from_levels,) = bench.host.upscale([tile], out_dtype="float32")
        (from_floats,) = bench.host.upscale([to_float(tile)], out_dtype="float32")
        np.testing.assert_array_equal(from_levels, from_floats, err_msg=model.name)


def test_a_model_that_is_not_there_is_refused_as_bad_input_and_the_worker_serves_on(worker: Worker) -> None:
    spec, bench, files = worker
    bench.host.send(Load(bench.host.number(), "none", "no-such-model", files={"param": "/nowhere"}))
    failed = bench.host.expect(Failed)
    assert (failed.failure, failed.retryable) == ("input", False)
    bench.host.load(spec.default_model, key="after", files=files[spec.default_model])
    bench.host.upscale([PICTURE])


def test_files_that_are_no_weights_are_refused_as_bad_input(worker: Worker, tmp_path: Path) -> None:
    spec, bench, files = worker
    for model in spec.models:
        for role in files[model.name]:
            bad = tmp_path / f"{model.name}.{role}"
            bad.write_bytes(b"no weights" * 100)
            wrong = {**files[model.name], role: str(bad)}
            bench.host.send(Load(bench.host.number(), f"bad {role}", model.name, files=wrong))
            assert bench.host.expect(Failed).failure == "input", (model.name, role)
    assert bench.process.poll() is None
