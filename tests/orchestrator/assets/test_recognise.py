"""A file of weights is told by names and shapes: which model, which role, and what is wrong where it is none."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from upx.assets.inspect.inventory import Group, Inventory, Tensor
from upx.assets.inspect.layouts import expand, read_layout, sizes
from upx.assets.inspect.safetensors import read_header
from upx.assets.recognise import Match, Verdict, recognise
from upx.errors import ManifestError
from upx.specs import Asset, BackendSpec, EnvSpec, ManualSource, ModelSpec

NETWORK: dict[str, Any] = {
    "schema": 1,
    "about": "a network of the tests",
    "wrappers": ["params_ema", "params"],
    "sizes_vary": True,
    "optional": ["mean"],
    "ignored": ["*.mask", "counter"],
    "tensors": {
        "first.{weight,bias}": [8],
        "layers.{0..2}.conv.weight": [8, 8, 3, 3],
        "layers.{0..2}.mask": [-1],
        "up.0.weight": ["3*s*s", 8],
        "mean": [1, 3],
    },
}
NAMES = ["first.weight", "first.bias", *(f"layers.{n}.conv.weight" for n in range(3)), "up.0.weight"]


@dataclass
class House:
    """Backends with layouts, written as they are needed."""

    root: Path
    made: dict[str, BackendSpec] = field(default_factory=dict)

    def add(self, name: str, models: dict[str, int], layout: dict[str, Any] | None, role: str = "weights") -> None:
        folder = self.root / name
        folder.mkdir()
        if layout is not None:
            (folder / "layout.json").write_text(json.dumps(layout))
        asset = Asset(
            role, "w.pth", (ManualSource("there"),), unverified="a test", layout="layout.json" if layout else ""
        )
        specs = tuple(ModelSpec(model, scale, (asset,)) for model, scale in models.items())
        env = EnvSpec(name, folder / "env.lock")
        self.made[name] = BackendSpec(name, name, folder, f"x.{name}", env, specs, next(iter(models)))

    def ask(self, *groups: Group, config: bool = False) -> Verdict:
        return recognise(Inventory("torch", groups), list(self.made.values()), config=config)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.add("net", {"net-x2": 2, "net-x4": 4, "net-x4-other": 4}, NETWORK)
    house.add("without", {"without-x4": 4}, None)
    return house


def group(path: str = "", prefix: str = "", *, scale: int = 4, drop: str = "", **more: tuple[int, ...]) -> Group:
    shapes: dict[str, tuple[int, ...]] = {"first.weight": (8,), "first.bias": (8,), "up.0.weight": (3 * scale**2, 8)}
    shapes |= {f"layers.{n}.conv.weight": (8, 8, 3, 3) for n in range(3)}
    shapes |= {name.replace("__", "."): shape for name, shape in more.items()}
    shapes.pop(drop, None)
    return Group(path, {f"{prefix}{name}": Tensor(name, "F32", shape) for name, shape in shapes.items()})


def trainer(count: int = 50) -> list[Group]:
    state = {name: Tensor(name, "F32", (8,)) for name in ("exp_avg", "exp_avg_sq")}
    return [Group(f"optimizer.state.{index}", state) for index in range(count)]


def test_every_model_of_one_architecture_and_scale_matches(house: House) -> None:
    found = house.ask(group())
    assert found.nearest is None
    assert found.matches == (
        Match("net", "net-x4", "weights", "", "", ()),
        Match("net", "net-x4-other", "weights", "", "", ()),
    )
    assert [match.model for match in house.ask(group(scale=2)).matches] == ["net-x2"]


def test_optional_tensors_may_be_there_and_ignored_ones_are_named(house: House) -> None:
    found = house.ask(group(mean=(1, 3), counter=(), layers__0__mask=(7,), first__mask=(9,)))
    assert found.matches[0].ignored == ("counter", "first.mask", "layers.0.mask")


@pytest.mark.parametrize("prefix", ["module.", "model.", "module._orig_mod."])
def test_a_prefix_that_all_names_share_is_stripped(house: House, prefix: str) -> None:
    match = house.ask(group("params", prefix, counter=())).matches[0]
    assert (match.group, match.strip, match.ignored) == ("params", prefix, ("counter",))


def test_a_prefix_that_only_some_share_is_not(house: House) -> None:
    mixed = Group("", {**group(prefix="module.").tensors, **group().tensors})
    assert not house.ask(mixed).matches


def test_the_top_comes_first_then_the_wrappers_in_their_order_then_any_other(house: House) -> None:
    groups = [group("elsewhere.net"), group("params"), group("params_ema"), group("")]
    for expected in ("", "params_ema", "params", "elsewhere.net"):
        assert house.ask(*groups, *trainer()).matches[0].group == expected
        groups = [each for each in groups if each.path != expected]


def test_a_wrapper_whose_tensors_do_not_fit_gives_way_to_one_that_does(house: House) -> None:
    found = house.ask(group("params_ema", drop="first.bias"), group("params"), *trainer())
    assert found.matches[0].group == "params"


def test_a_state_of_an_optimizer_alone_is_no_model(house: House) -> None:
    found = house.ask(*trainer())
    assert found == Verdict((), None)
    assert house.ask() == Verdict((), None)


def test_missing_tensors_are_named_first(house: House) -> None:
    near = house.ask(group("params", drop="layers.1.conv.weight", first__weight=(9,), strange=(1,)), *trainer()).nearest
    assert near is not None
    assert (near.model, near.role, near.group) == ("net-x4", "weights", "params")
    assert near.problem == "1 of 10 tensors are missing, the first is layers.1.conv.weight"
    assert 0 < near.share < 1


def test_a_wrong_shape_is_named_with_what_it_is_and_should_be(house: House) -> None:
    near = house.ask(group(up__0__weight=(27, 8), strange=(1,))).nearest
    assert near is not None
    assert near.problem == "up.0.weight is 27 x 8, and should be 12 x 8"
    near = house.ask(group(first__bias=())).nearest
    assert near is not None
    assert near.problem == "first.bias is a single value, and should be 8"


def test_unexpected_tensors_are_named_last(house: House) -> None:
    near = house.ask(group(zzz=(1,), yyy=(1,))).nearest
    assert near is not None
    assert near.problem == "2 of its tensors are unexpected, the first is zzz"


def test_the_nearest_is_the_model_whose_shapes_agree_most(house: House) -> None:
    house.add("far", {"far-x4": 4}, {**NETWORK, "tensors": {**NETWORK["tensors"], "more.{0..40}.weight": [1]}})
    for scale, model in ((2, "net-x2"), (4, "net-x4")):
        near = house.ask(group(scale=scale, drop="first.bias")).nearest
        assert near is not None
        assert near.model == model


def test_any_size_will_do_where_minus_one_stands(house: House) -> None:
    house.add("any", {"any-x1": 1}, {"schema": 1, "tensors": {"tensor": [-1, 4]}}, role="embedding")
    (match,) = house.ask(Group("", {"tensor": Tensor("tensor", "F32", (77, 4))})).matches
    assert (match.model, match.role) == ("any-x1", "embedding")
    assert not house.ask(Group("", {"tensor": Tensor("tensor", "F32", (4,))})).matches


def test_with_a_config_sizes_and_layers_vary_and_the_scale_still_tells(house: House) -> None:
    other = group(scale=2, first__weight=(16,), layers__7__conv__weight=(16, 16, 5, 5), drop="layers.1.conv.weight")
    assert not house.ask(other).matches
    assert [match.model for match in house.ask(other, config=True).matches] == ["net-x2"]
    # A config may change the scale too: then no model's scale fits, and all of the architecture are left.
    assert len(house.ask(group(scale=3), config=True).matches) == 3


def test_with_a_config_every_kind_of_tensor_is_still_needed_and_no_other_allowed(house: House) -> None:
    bare = {name: Tensor(name, "F32", (8,)) for name in NAMES if not name.startswith("layers")}
    near = house.ask(Group("", bare), config=True).nearest
    assert near is not None
    assert near.problem == "1 of 6 kinds of tensors are missing, the first is that of layers.0.conv.weight"
    near = house.ask(group(strange=(1,)), config=True).nearest
    assert near is not None
    assert near.problem == "1 of its tensors are unexpected, the first is strange"


def test_a_config_changes_nothing_where_sizes_do_not_vary(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.add("net", {"net-x4": 4}, {**NETWORK, "sizes_vary": False})
    assert not house.ask(group(first__weight=(16,)), config=True).matches


def test_braces_expand_both_ends_included() -> None:
    assert list(expand("a.{0..2}.{x,y.z}")) == ["a.0.x", "a.0.y.z", "a.1.x", "a.1.y.z", "a.2.x", "a.2.y.z"]
    assert list(expand("plain.{8..8}")) == ["plain.8"]
    assert sizes(("3*s*s", -1, "s", 5, "2*7"), 3) == (27, -1, 3, 5, 14)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"schema": None}, "schema"),
        ({"tensor": {}}, "unknown key tensor"),
        ({"tensors": {}}, "lists nothing"),
        ({"tensors": []}, "lists nothing"),
        ({"tensors": {"a": 5}}, "is no size"),
        ({"tensors": {"a": [1.5]}}, "is no size"),
        ({"tensors": {"a": [-2]}}, "is no size"),
        ({"tensors": {"a": ["3*t"]}}, "is no size"),
        ({"tensors": {"a": ["__import__('os')"]}}, "is no size"),
        ({"tensors": {"a.{3..1}": [1]}}, "backwards"),
        ({"tensors": {"a.{0..999}.{0..999}": [1]}}, "more than 100000 names"),
        ({"wrappers": "params"}, "wrappers"),
        ({"ignored": [5]}, "ignored"),
    ],
)
def test_a_layout_that_cannot_be_used_is_named_with_its_file(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "layout.json"
    path.write_text(json.dumps({**NETWORK, **change}))
    with pytest.raises(ManifestError, match=says) as caught:
        read_layout(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"[" * 100_000])
def test_a_layout_that_is_no_json_object_is_named_too(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "layout.json"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"layout\.json"):
        read_layout(path)
    with pytest.raises(ManifestError):
        read_layout(tmp_path / "none.json")


def test_a_dozen_models_of_a_thousand_tensors_are_compared_in_a_tenth_of_a_second(tmp_path: Path) -> None:
    house = House(tmp_path)
    for number in range(6):
        names = {f"b{number}.blocks.{{0..99}}.{{a,b,c,d,e,f,g,h,i,j}}.weight": [64, 64]}
        house.add(f"net{number}", {f"n{number}-x2": 2, f"n{number}-x4": 4}, {"schema": 1, "tensors": names})
    tensors = {name: Tensor(name, "F32", (64, 64)) for name in expand("b5.blocks.{0..99}.{a,b,c,d,e,f,g,h,i,j}.weight")}
    whole, cut = Group("model", tensors), Group("model", dict(list(tensors.items())[1:]))
    for found, groups in ((2, [whole]), (0, [cut])):
        took = []
        for _ in range(5):
            started = time.process_time()
            assert len(house.ask(*groups, *trainer(1_000)).matches) == found
            took.append(time.process_time() - started)
        assert min(took) < 0.1


@pytest.mark.shared
def test_the_golden_tiny_networks_are_their_family_at_their_scale(shared: Path) -> None:
    folder = Path(__file__).resolve().parents[3] / "backends" / "upx_backends" / "hitsr"
    for kind in ("srf", "sir", "sng"):
        asset = Asset("weights", "w", (), unverified="a test", layout=f"layouts/hit-{kind}.json")
        models = tuple(ModelSpec(f"{kind}-x{scale}", scale, (asset,)) for scale in (2, 3, 4))
        spec = BackendSpec("hitsr", "", folder, "x", EnvSpec("hitsr", folder), models, models[0].name)
        found = recognise(
            read_header(shared / "golden" / "hitsr" / f"hit_{kind}_tiny_x2.safetensors"), [spec], config=True
        )
        assert [match.model for match in found.matches] == [f"{kind}-x2"]
