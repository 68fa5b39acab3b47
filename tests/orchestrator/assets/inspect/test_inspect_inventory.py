"""The worker's inventory is a stranger's word: it is taken when all of it is well formed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from upx.assets.inspect.inventory import Group, Inventory, Tensor, from_json
from upx.errors import UnusableWeightsError

GOOD: dict[str, Any] = {
    "groups": {"params": {"w": {"dtype": "F32", "shape": [3, 4]}}, "": {"n": {"dtype": "complex64", "shape": []}}},
    "other": {"epoch": "7"},
}


def test_groups_tensors_and_the_values_beside_them_are_taken() -> None:
    assert from_json(GOOD) == Inventory(
        "torch",
        (
            Group("params", {"w": Tensor("w", "F32", (3, 4))}),
            Group("", {"n": Tensor("n", "complex64", ())}),
        ),
        {"epoch": "7"},
    )


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("groups",), []),
        (("groups",), None),
        (("other",), {"epoch": 7}),
        (("other",), {"epoch": "x" * 5_000}),
        (("groups", "params"), ["w"]),
        (("groups", "params", "w"), {"dtype": "F32"}),
        (("groups", "params", "w", "shape"), [3, -4]),
        (("groups", "params", "w", "shape"), [3, 4.0]),
        (("groups", "params", "w", "shape"), [True]),
        (("groups", "params", "w", "shape"), [2**70]),
        (("groups", "params", "w", "shape"), "34"),
        (("groups", "params", "w", "dtype"), 32),
        (("groups", "n" * 5_000), {}),
    ],
)
def test_anything_else_is_refused(where: tuple[str, ...], value: object) -> None:
    wrong: Any = copy.deepcopy(GOOD)
    inner = wrong
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(UnusableWeightsError, match="cannot be used"):
        from_json(wrong)


@pytest.mark.parametrize("value", [None, [], "x", {}, {"groups": {}}])
def test_what_is_no_inventory_is_refused(value: object) -> None:
    with pytest.raises(UnusableWeightsError):
        from_json(value)
