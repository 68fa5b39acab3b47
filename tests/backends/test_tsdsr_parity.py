"""TSD-SR computes what upstream computes, to the last tensor, and every way known to get it wrong would be seen."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.config import Settings

pytestmark = pytest.mark.shared
ROOT = Path(__file__).resolve().parents[2]
# What MANIFEST.json beside the golden files suggests: float tensors, the input's pixels, 8 bits and their share.
FLOAT, PIXELS, LEVELS, ADAIN_LEVELS, SHARE = 2e-4, 1e-6, 1, 4, 0.003
COMMANDS = ("taps", "colours", "wrong", "refused", "full_size", "tiling", "halves")


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "tsdsr"


@pytest.fixture(scope="module")
def measured(
    golden: Path,
    settings: Settings,
    backend_python: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Everything that tsdsr_kit.py measures, of one process: importing takes longer than most of it."""
    from upx.catalog import Catalog

    folder = tmp_path_factory.mktemp("kit")
    # Their own code, ours beside it, and nothing of the tests' environment.
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT / 'protocol'}:{ROOT / 'backends'}:{Path(__file__).parent}",
    }
    environ |= Catalog(settings).backend("tsdsr").environ
    command = [
        backend_python("tsdsr"), "-P", Path(__file__).with_name("tsdsr_kit.py"), ",".join(COMMANDS), golden, folder,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, cwd=folder, env=environ, timeout=170)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)


def too_far(row: dict[str, Any]) -> bool:
    """Whether a comparison is outside of what is allowed; a size has to be the very one."""
    if "error" in row:
        return True
    bound = {"adain": ADAIN_LEVELS, "size": 0}.get(row["method"], LEVELS)
    return row["max"] > bound or row["share"] >= SHARE


# ---------------------------------------------------------------------------------------------- right


def test_every_tensor_that_upstream_left_is_met(golden: Path, measured: dict[str, Any]) -> None:
    taps = measured["taps"]
    there = {f"{path.parent.name}/{path.stem.removeprefix('tap_')}" for path in golden.glob("cases/*/tap_*.npy")}
    assert set(taps) == there
    assert {name.split("/")[1] for name in taps} == {
        "noise", "moments", "tf_in0", "tf_out0", "decode_in", "decoded", "pixels_corners",
    }  # fmt: skip
    bounds = {"pixels_corners": PIXELS, "noise": 0.0}
    assert not {name: off for name, off in taps.items() if off > bounds.get(name.split("/")[1], FLOAT)}


def test_the_colour_fixes_are_upstreams_as_floats_and_as_levels(measured: dict[str, Any]) -> None:
    found = measured["colours"]
    assert len(found) == 10
    assert all(off <= (5e-7 if name.endswith("float") else 1) for name, off in found.items()), found


def test_golden_pictures_and_sizes_are_met(measured: dict[str, Any]) -> None:
    assert not [row for row in measured["wrong"][""] if too_far(row)]


def test_the_lora_of_the_full_size_is_asked_for_name_by_name(measured: dict[str, Any]) -> None:
    assert measured["full_size"] == {"transformer": {"same": True, "count": 532}, "vae": {"same": True, "count": 62}}


# ---------------------------------------------------------------------------------------------- wrong


def test_every_wrong_variant_that_is_known_fails_when_it_is_put_in(golden: Path, measured: dict[str, Any]) -> None:
    known = json.loads((golden / "MANIFEST.json").read_text())["wrong_variants_seen_to_fail"]
    assert set(measured["wrong"]) == {"", *known}
    assert len(known) == 12
    unseen = [name for name, rows in measured["wrong"].items() if name and not any(too_far(row) for row in rows)]
    assert not unseen


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("lora missing", "transformer-lora: transformer.transformer_blocks.0.attn.to_q.lora_B.weight is missing"),
        ("lora extra", "transformer-lora: transformer.more.lora_A.weight is unexpected"),
        ("lora quant_conv", "vae-lora: transformer.quant_conv.lora_A.weight is unexpected"),
        ("lora rank of B", "attn.to_q.lora_B.weight has the shape [32, 3], wanted is [32, 4]"),
        ("lora rank of one", "encoder.conv_out.lora_A.weight has the shape [1, 24, 3, 3], wanted is [2, 24, 3, 3]"),
        ("lora without prefix", "conv_in.lora_A.weight is missing, and encoder.conv_in.lora_A.weight is unexpected"),
        ("lora with vae as prefix", "vae-lora: transformer.encoder.conv_in.lora_A.weight is missing, and vae.encoder"),
        ("lora swapped", "is missing, and transformer.norm_out.linear.lora_A.weight is unexpected"),
        ("lora empty", "vae-lora: transformer.encoder.conv_in.lora_A.weight is missing"),
        ("base missing", "base-vae: decoder.conv_in.bias is missing"),
        ("base extra", "base-transformer: quality is unexpected"),
        ("base shape", "base-transformer: proj_out.bias has the shape [63], wanted is [64]"),
        (
            "base prefix",
            "pos_embed.pos_embed is missing, and model.diffusion_model.context_embedder.bias is unexpected",
        ),
        ("prompt shape", "prompt-embeds: tensor has the shape [13, 24], wanted is [1, -1, 24]"),
        ("prompt width", "prompt-embeds: tensor has the shape [1, 13, 23], wanted is [1, 13, 24]"),
        ("pool name", "pool-embeds: tensor is missing, and pooled is unexpected"),
        ("noise", "base-vae: noise.safetensors is no safetensors file"),
        ("old pickle", "pool-embeds: old.pt is of a form that is not opened here"),
        ("script", "pool-embeds: script.pt is a TorchScript archive, which holds a program"),
        ("pickle with more", "pool-embeds: many.pt holds more than named tensors"),
        ("absent", "no file for 'vae-lora'"),
        ("config other", "base-vae-config: it describes a UNet2DModel"),
        ("config strange", "base-transformer-config: it describes no SD3Transformer2DModel"),
        ("config list", "base-transformer-config: list.json holds no configuration"),
        ("config noise", "base-transformer-config: noise.safetensors is no JSON"),
        ("config quant", "base-vae: quant_conv.weight is missing"),
    ],
)
def test_a_file_that_is_not_exactly_as_it_should_be_is_refused_by_its_first_wrong_name(
    measured: dict[str, Any], case: str, words: str
) -> None:
    assert words in measured["refused"][case]


@pytest.mark.parametrize("case", ["ranks 1", "prompt same", "packed pickle"])
def test_another_rank_and_other_forms_of_the_same_tensors_load(measured: dict[str, Any], case: str) -> None:
    assert measured["refused"][case] == ""


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 0.01), ("bf16", 0.05)])
def test_half_precisions_hold_nothing_else_and_encode_alike(
    measured: dict[str, Any], precision: str, bound: float
) -> None:
    found = measured["halves"][precision]
    assert found["dtypes"] == [{"fp16": "torch.float16", "bf16": "torch.bfloat16"}[precision]]
    assert 0 < found["off"][0] < bound
    assert found["off"][1] == 0


# ---------------------------------------------------------------------------------------------- tiles


def test_tiles_begin_where_upstreams_do_and_add_up_to_the_whole(measured: dict[str, Any]) -> None:
    found = measured["tiling"]
    assert found["starts"] == [[0, 31], [0], [0, 8, 14]]
    assert (found["one"]["calls"], found["wide"]["calls"]) == (1, 2)
    assert all(found[name]["off"] < 1e-6 for name in ("one", "wide", "thin", "long", "odd tile")), found
    assert max(found["encode"], found["decode"]) < 1e-6


def test_a_tile_is_square_even_and_no_longer_than_the_shorter_side(measured: dict[str, Any]) -> None:
    found = measured["tiling"]
    shapes = [found[name]["shape"] for name in ("wide", "thin", "long", "odd tile")]
    assert shapes == [[64, 64], [6, 6], [2, 2], [12, 12]]
