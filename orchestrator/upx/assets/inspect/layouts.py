"""A layout: the tensors that an asset must hold, as the JSON file in a backend's folder lists them.

``{"schema": 1, "about": "...", "wrappers": ["params"], "sizes_vary": false, "optional": ["mean"],
"ignored": ["*.mask"], "tensors": {"layers.{0..3}.{norm1,norm2}.weight": [60], "up.weight": ["3*s*s", 60, 3, 3]}}``.
Braces expand, a range with both its ends. An axis is a number, -1 for any, or a product of numbers and ``s``, the
model's scale. ``wrappers``: groups that it may lie in besides the top. ``optional``: patterns of listed tensors that
may be absent. ``ignored``: patterns of tensors, listed or not, that may be present, and are not kept. ``sizes_vary``:
a ``config.json`` beside the file may change every size, and how many layers there are.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from upx.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = 1
_KEYS = frozenset({"schema", "about", "wrappers", "sizes_vary", "optional", "ignored", "tensors"})
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,6})\.\.(\d{1,6})")
_PRODUCT = re.compile(r"(\d{1,9}|s)(\*(\d{1,9}|s))*")
# More than any network has; braces in braces could say billions.
_NAMES = 100_000
_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout as it stands in its file, braces expanded."""

    path: Path
    wrappers: tuple[str, ...]
    sizes_vary: bool
    optional: re.Pattern[str]
    ignored: re.Pattern[str]
    tensors: dict[str, tuple[int | str, ...]]


def read_layout(path: Path) -> Layout:
    """Read and check it; ManifestError names the file and what is wrong."""
    try:
        table = _table(json.loads(path.read_bytes()))
        return Layout(
            path=path,
            wrappers=tuple(_texts(table, "wrappers")),
            sizes_vary=table.get("sizes_vary", False) is True,
            optional=_pattern(_texts(table, "optional")),
            ignored=_pattern(_texts(table, "ignored")),
            tensors=_tensors(table.get("tensors")),
        )
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ManifestError(f"{path}: {error}", hint="backends/README.md describes layouts") from error


def sizes(shape: tuple[int | str, ...], scale: int) -> tuple[int, ...]:
    """The shape for that scale; -1 stays."""
    return tuple(axis if isinstance(axis, int) else _product(axis, scale) for axis in shape)


def expand(pattern: str) -> Iterator[str]:
    """Every name that the braces stand for; ValueError for a range that runs backwards."""
    parts = _BRACES.split(pattern)
    # Text and the insides of braces take turns.
    choices = [[part] if index % 2 == 0 else _choices(part) for index, part in enumerate(parts)]
    if math.prod(len(each) for each in choices) > _NAMES:
        raise ValueError(f"{pattern[:100]!r} stands for more than {_NAMES} names")
    return map("".join, itertools.product(*choices))


def _choices(inside: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if found is None:
        return inside.split(",")
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise ValueError(f"the range {{{inside}}} runs backwards")
    return [str(number) for number in range(first, last + 1)]


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("a layout is a JSON object")
    table = cast("dict[str, Any]", value)
    if unknown := sorted(table.keys() - _KEYS):
        raise ValueError(f"unknown key {unknown[0]}")
    if table.get("schema") != SCHEMA:
        raise ValueError(f"schema is {table.get('schema')!r}, and this version reads {SCHEMA}")
    return table


def _texts(table: dict[str, Any], key: str) -> list[str]:
    value: object = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in cast("list[object]", value)):
        raise TypeError(f"{key} is no list of texts")
    return cast("list[str]", value)


def _pattern(globs: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, globs))) if globs else _NOTHING


def _tensors(value: object) -> dict[str, tuple[int | str, ...]]:
    if not isinstance(value, dict) or not value:
        raise TypeError("tensors lists nothing")
    found: dict[str, tuple[int | str, ...]] = {}
    for pattern, shape in cast("dict[str, object]", value).items():
        axes = cast("list[object]", shape) if isinstance(shape, list) else [None]
        checked = tuple(_axis(axis, pattern) for axis in axes)
        found.update(dict.fromkeys(expand(pattern), checked))
        if len(found) > _NAMES:
            raise ValueError(f"its names stand for more than {_NAMES}")
    return found


def _axis(axis: object, pattern: str) -> int | str:
    if type(axis) is int and axis >= -1:
        return axis
    if isinstance(axis, str) and _PRODUCT.fullmatch(axis):
        return axis
    raise ValueError(f"{pattern}: {axis!r} is no size")


def _product(text: str, scale: int) -> int:
    return math.prod(scale if factor == "s" else int(factor) for factor in text.split("*"))
