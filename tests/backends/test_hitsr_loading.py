"""Files of HiT-SR are loaded whole or refused, by the first key that is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import hitsr_kit as kit
import numpy as np
import pytest
from test_hitsr import inside

from upx_protocol.messages import Failed, Load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Bench
    from upx.config import Settings

    Refused = Callable[..., str]

pytestmark = pytest.mark.shared_workers

PICTURE = np.random.default_rng(5).integers(0, 256, (9, 7, 3), np.uint8)
MODEL = "hitsr-sng-x2"
BLOCK = "layers.1.residual_group.blocks.3."


@pytest.fixture(scope="module")
def python(backend_python: Callable[[str], Path]) -> Path:
    return backend_python("hitsr")


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, settings: Settings, python: Path) -> Iterator[Bench]:
    from upx.catalog import Catalog

    with request.getfixturevalue("running_backend")(Catalog(settings).backend("hitsr"), python) as bench:
        yield bench


@pytest.fixture(scope="module")
def tensors() -> kit.Tensors:
    return kit.recipe("sng", 2)


@pytest.fixture
def refused(bench: Bench, tmp_path: Path) -> Refused:
    """What the worker says of tensors, or of a file, that it has to refuse."""

    def load(given: kit.Tensors | str | Path, *, model: str = MODEL, config: object = None) -> str:
        path = kit.write_safetensors(tmp_path / "w.safetensors", given) if isinstance(given, dict) else given
        files = {"weights": str(path)}
        if config is not None:
            written = tmp_path / "config.json"
            written.write_text(config if isinstance(config, str) else json.dumps(config))
            files["config"] = str(written)
        bench.host.send(Load(bench.host.number(), "refused", model, files=files))
        failed = bench.host.expect(Failed)
        assert failed.failure == "input"
        return failed.message

    return load


def answer(bench: Bench, path: str | Path, **more: Any) -> Any:
    bench.host.load(MODEL, key=f"{path}", files={"weights": str(path), **more})
    return bench.host.upscale([PICTURE], out_dtype="float32")[0].copy()


# ---------------------------------------------------------------------------------------------- accepted


def test_every_layout_that_the_weights_come_in_gives_the_same(
    python: Path, bench: Bench, refused: Refused, tensors: kit.Tensors, tmp_path: Path
) -> None:
    path = kit.write_safetensors(tmp_path / "bare.safetensors", tensors)
    saved = inside(python, "save", path, tmp_path)
    expected = answer(bench, path)
    for layout in ("bare", "params", "params_ema", "module", "both"):
        np.testing.assert_array_equal(answer(bench, saved[layout]), expected, err_msg=layout)
    for prefix in ("params.", "params_ema.", "module.", "params.module."):
        named = {f"{prefix}{name}": each for name, each in tensors.items()}
        found = answer(bench, kit.write_safetensors(tmp_path / f"{prefix}safetensors", named))
        np.testing.assert_array_equal(found, expected, err_msg=prefix)
    # Rounded to float16, and computed in float32 again.
    assert 0 < np.abs(answer(bench, saved["half"]) - expected).max() < 0.01
    assert "conv_first.weight is no tensor" in refused(saved["no-tensor"])
    assert "conv_first.weight is there twice" in refused(saved["twice"])
    assert "holds no table" in refused(saved["list"])
    assert "upsample.0.weight is missing" in refused(saved["nothing"])


def test_the_constant_index_may_be_absent_and_may_not_say_something_else(
    bench: Bench, refused: Refused, tensors: kit.Tensors, tmp_path: Path
) -> None:
    without = {name: each for name, each in tensors.items() if each.dtype != np.int64}
    assert len(tensors) - len(without) == 24
    found = answer(bench, kit.write_safetensors(tmp_path / "without.safetensors", without))
    expected = answer(bench, kit.write_safetensors(tmp_path / "with.safetensors", tensors))
    np.testing.assert_array_equal(found, expected)
    name = kit.first(tensors, f"{BLOCK}correlation.ngram_window_partition.ngram_context.ngram_attn.relative_position_i")
    assert f"{name} is unexpected" in refused({**tensors, name: tensors[name] + 1})


def test_a_config_that_says_what_is_released_changes_nothing(
    bench: Bench, tensors: kit.Tensors, tmp_path: Path
) -> None:
    path = kit.write_safetensors(tmp_path / "w.safetensors", tensors)
    released = {
        "upscale": 2, "in_chans": 3, "img_size": 64, "embed_dim": 60, "depths": [6, 6, 6, 6], "num_heads": [6, 6, 6, 6],
        "base_win_size": [8, 8], "hier_win_ratios": [0.5, 1, 2, 4, 6, 8], "expansion_factor": 2, "img_range": 1.0,
        "upsampler": "pixelshuffledirect", "resi_connection": "1conv",
    }  # fmt: skip
    config = tmp_path / "config.json"
    config.write_text(json.dumps(released))
    np.testing.assert_array_equal(answer(bench, path, config=str(config)), answer(bench, path))
    # And one that says something else is obeyed: of the same tensors, by another range.
    config.write_text(json.dumps({"img_range": 2.0}))
    bench.host.load(MODEL, key="ranged", files={"weights": str(path), "config": str(config)})
    assert np.abs(bench.host.upscale([PICTURE], out_dtype="float32")[0] - answer(bench, path)).max() > 1e-3


# ---------------------------------------------------------------------------------------------- refused


def test_another_scale_is_named(refused: Refused, tensors: kit.Tensors) -> None:
    message = refused(tensors, model="hitsr-sng-x4")
    assert "wrong scale: upsample.0.weight is for x2, the model asked for is x4" in message
    assert "wrong scale: config.json says x3, the model asked for is x2" in refused(tensors, config={"upscale": 3})


def test_a_missing_an_unexpected_and_a_misshapen_tensor_are_named(refused: Refused, tensors: kit.Tensors) -> None:
    gone = [f"{BLOCK}mlp.fc1.bias", f"{BLOCK}mlp.fc2.bias"]
    assert f"{gone[0]} is missing" in refused({name: each for name, each in tensors.items() if name not in gone})
    assert "layers.0.extra is unexpected" in refused({**tensors, "layers.0.extra": np.zeros(3, np.float32)})
    name = f"{BLOCK}correlation.proj.weight"
    message = refused({**tensors, name: np.zeros((60, 59), np.float32)})
    assert f"{name} has the shape [60, 59], [60, 60] is wanted" in message
    assert f"{name} is torch.int64, a float is wanted" in refused({**tensors, name: np.zeros((60, 60), np.int64)})


def test_the_family_is_told_by_names_and_half_of_another_is_refused(refused: Refused, tensors: kit.Tensors) -> None:
    plain = {name: each for name, each in tensors.items() if "ngram" not in name}
    name = f"{BLOCK}correlation.ngram_window_partition.ngram_context.merge.bias"
    assert ".blocks.0.correlation.ngram_window_partition." in refused({**plain, name: tensors[name]})
    half = {**plain, "layers.3.residual_group.blocks.5.mlp.dwconv.depthwise_conv.0.bias": np.zeros(120, np.float32)}
    assert ".mlp.dwconv.depthwise_conv.0.weight is missing" in refused(half, model="hitsr-srf-x2")


def test_another_family_is_named(refused: Refused, tensors: kit.Tensors) -> None:
    message = refused(tensors, model="hitsr-sir-x2")
    assert "wrong family: these are weights of HiT-SNG, not of HiT-SIR" in message


def test_files_that_are_no_weights_are_refused(refused: Refused, tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pth"):
        path = tmp_path / name
        path.write_bytes(b"no weights" * 100)
        assert name in refused(path)
        assert name in refused(tmp_path / f"nothing-{name}")
    assert "no weights of HiT-SR" in refused({"conv.weight": np.zeros((3, 3), np.float32)})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "config.json cannot be read"),
        ([1], "config.json holds no table"),
        ({"upsampler": "nearest+conv"}, "upsampler is 'nearest+conv'"),
        ({"ape": True}, "ape is True"),
        ({"base_win_size": [8, 4]}, "only square windows"),
        ({"base_win_size": 8}, "config.json: "),
        ({"embed_dim": 64}, "embed_dim 64 is no multiple of twice num_heads 6"),
        ({"depths": [6, 6]}, "2 depths and 4 num_heads"),
        ({"depths": [7, 6, 6, 6]}, "7 blocks in depths, 6 hier_win_ratios"),
        ({"hier_win_ratios": [0.5, 1, 2, 4, 6, 8.5]}, "a window of 68 is no multiple of 8"),
        ({"embed_dim": -60}, "dim is -60, and has to be positive"),
        ({"embed_dim": "wide"}, "config.json: "),
        ({"embed_dim": 12 * 10**11}, "dim is 1200000000000, and has to be positive (and below 10000)"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio is nan, and has to be positive"),
        ({"mlp_ratio": 3}, "mlp.fc1.weight has the shape [120, 60], [180, 60] is wanted"),
        ({"hier_win_ratios": [1, 1, 2, 4, 6, 8]}, "unigram_embed.weight has the shape [1, 2, 4, 4], [1, 2, 8, 8]"),
    ],
)
def test_a_config_that_no_network_or_not_this_one_has_is_refused(
    refused: Refused, tensors: kit.Tensors, config: object, words: str
) -> None:
    assert words in refused(tensors, config=config)
