"""The layouts of weights say what is in the files: every name and shape, as the golden lists have them.

The expander here is written anew from backends/README.md, so that it and the product's check each other.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

BACKENDS = Path(__file__).resolve().parents[2] / "backends" / "upx_backends"
COUNTS = {
    "hitsr/layouts/hit-sir.json": 834,
    "hitsr/layouts/hit-sng.json": 1074,
    "hitsr/layouts/hit-srf.json": 882,
    "tsdsr/layouts/pool-embeds.json": 1,
    "tsdsr/layouts/prompt-embeds.json": 1,
    "tsdsr/layouts/base-transformer.json": 683,
    "tsdsr/layouts/base-vae.json": 244,
    "tsdsr/layouts/transformer-lora.json": 532,
    "tsdsr/layouts/vae-lora.json": 62,
    "varsr/layouts/var.json": 405,
    "varsr/layouts/vqvae.json": 324,
}
KEYS = ["schema", "about", "wrappers", "sizes_vary", "optional", "ignored", "tensors"]

Shapes = dict[str, list[int]]


def read(layout: str) -> dict[str, Any]:
    return json.loads((BACKENDS / layout).read_text(encoding="utf-8"))


def names(pattern: str) -> list[str]:
    """Every name that a pattern with braces stands for."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [[part] if index % 2 == 0 else alternatives(part) for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def alternatives(inner: str) -> list[str]:
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
        return [str(number) for number in range(int(span[1]), int(span[2]) + 1)]
    return inner.split(",")


def side(entry: int | str, scale: int) -> int:
    if isinstance(entry, int):
        return entry
    return math.prod(scale if factor == "s" else int(factor) for factor in entry.split("*"))


def expand(layout: str, scale: int = 4) -> Shapes:
    return expand_tensors(read(layout)["tensors"], scale)


def expand_tensors(tensors: dict[str, list[int | str]], scale: int) -> Shapes:
    found: Shapes = {}
    for pattern, shape in tensors.items():
        for name in names(pattern):
            assert name not in found, f"{name} stands twice"
            found[name] = [side(entry, scale) for entry in shape]
    return found


def assert_same(layout: str, golden: Shapes, scale: int = 4) -> None:
    """Same names; same shapes, but for sides that may be any."""
    expanded = expand(layout, scale)
    assert sorted(expanded) == sorted(golden)
    for name, shape in expanded.items():
        assert len(shape) == len(golden[name]), name
        assert all(mine in {-1, theirs} for mine, theirs in zip(shape, golden[name], strict=True)), name


def assets() -> list[tuple[str, dict[str, Any]]]:
    """Every asset of our own manifests, with its backend."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(BACKENDS.glob("*/backend.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = [table, *table["models"]]
        found += [(path.parent.name, asset) for each in tables for asset in each.get("assets", [])]
    return found


# ---------------------------------------------------------------------------------------------- by themselves


def test_every_layout_that_a_manifest_names_is_there_and_none_lies_about_unused() -> None:
    named = {f"{backend}/{asset['layout']}" for backend, asset in assets() if "layout" in asset}
    there = {path.relative_to(BACKENDS).as_posix() for path in BACKENDS.glob("*/layouts/*")}
    assert named == there == set(COUNTS)


@pytest.mark.parametrize("layout", COUNTS)
def test_a_layout_has_every_key_and_as_many_tensors_as_the_file(layout: str) -> None:
    table = read(layout)
    assert list(table) == KEYS
    assert table["schema"] == 1
    assert table["about"]
    assert isinstance(table["sizes_vary"], bool)
    assert len(expand(layout)) == COUNTS[layout]


@pytest.mark.parametrize("layout", COUNTS)
def test_every_pattern_of_what_may_be_missing_or_is_left_out_means_something_and_leaves_something(layout: str) -> None:
    table, tensors = read(layout), expand(layout)
    patterns = [*table["optional"], *table["ignored"]]
    for pattern in patterns:
        assert any(fnmatchcase(name, pattern) for name in tensors), pattern
    assert any(not any(fnmatchcase(name, pattern) for pattern in patterns) for name in tensors)


def test_only_the_last_layer_of_hit_sr_depends_on_the_scale() -> None:
    for family in ("sir", "sng", "srf"):
        two, three = (expand(f"hitsr/layouts/hit-{family}.json", scale) for scale in (2, 3))
        assert {name for name in two if two[name] != three[name]} == {"upsample.0.weight", "upsample.0.bias"}
        assert (two["upsample.0.bias"], three["upsample.0.bias"]) == ([12], [27])


def test_what_a_decoder_needs_of_the_vqvae_is_kept_and_nothing_of_its_encoder() -> None:
    ignored = read("varsr/layouts/vqvae.json")["ignored"]
    kept = {name for name in expand("varsr/layouts/vqvae.json") if not any(fnmatchcase(name, each) for each in ignored)}
    assert {name.split(".")[0] for name in kept} == {"decoder", "quantize", "post_quant_conv"}
    assert {"quantize.embedding.weight", "quantize.quant_resi.qresi_ls.3.weight"} <= kept


def test_a_size_that_is_only_computed_is_no_promise_and_no_file_is_without_hash_or_reason() -> None:
    for backend, asset in assets():
        assert ("sha256" in asset) != ("unverified" in asset), (backend, asset["file"])
        assert not ("size" in asset and "about" in asset), (backend, asset["file"])


def test_the_example_of_the_page_is_a_layout_of_as_many_tensors_as_it_says() -> None:
    page = (BACKENDS.parent / "README.md").read_text(encoding="utf-8")
    example = re.search(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    table = json.loads(example[1])
    assert list(table) == KEYS
    assert table["about"].startswith("Seven ")
    assert len(expand_tensors(table["tensors"], 4)) == 7


# ---------------------------------------------------------------------------------------------- golden lists


@pytest.mark.shared
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("family", ["sir", "sng", "srf"])
def test_hit_sr_is_as_upstream_builds_it(shared: Path, family: str, scale: int) -> None:
    listed = json.loads((shared / f"golden/hitsr/hit_{family}_x{scale}_manifest.json").read_text())
    golden = {name: shape for name, (shape, _) in listed["keys"].items()}
    assert_same(f"hitsr/layouts/hit-{family}.json", golden, scale)


@pytest.mark.shared
@pytest.mark.parametrize(("layout", "group"), [("var", "var_wo_ddp"), ("vqvae", "vae_local")])
def test_varsr_is_as_upstream_builds_it(shared: Path, layout: str, group: str) -> None:
    listed = json.loads((shared / "golden/varsr/manifest_full.json").read_text())
    golden = {name: entry["shape"] for name, entry in listed[group].items()}
    assert_same(f"varsr/layouts/{layout}.json", golden)
    assert read(f"varsr/layouts/{layout}.json")["wrappers"] == [f"trainer.{group}"]


@pytest.mark.shared
@pytest.mark.parametrize(("layout", "group"), [("transformer-lora", "transformer"), ("vae-lora", "vae")])
def test_tsd_sr_is_as_upstream_writes_it(shared: Path, layout: str, group: str) -> None:
    listed = json.loads((shared / "golden/tsdsr/full_size_manifest.json").read_text())
    assert_same(f"tsdsr/layouts/{layout}.json", listed[group])


@pytest.mark.shared
def test_the_sizes_said_of_files_without_a_hash_are_those_of_their_tensors(shared: Path) -> None:
    """As float32, or as it is kept; a safetensors header is a twentieth more at most, int64 tables less than that."""
    for backend, asset in assets():
        if backend in {"varsr", "tsdsr"} and "layout" in asset:
            tensors = expand(f"{backend}/{asset['layout']}").values()
            width = 2 if asset["role"].startswith("base-") else 4  # the base is kept as float16
            computed = width * sum(math.prod(abs(entry) for entry in shape) for shape in tensors)
            assert abs(asset["about"] / computed - 1) < 0.05, (asset["file"], computed)
