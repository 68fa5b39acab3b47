"""An inventory: the names, dtypes and shapes of a file's tensors, in the groups that they lie in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

Format: TypeAlias = Literal["safetensors", "torch", "onnx"]
# More than any file holds; the numbers of a shape fit into what every reader has for them.
_AXES, _LONGEST, _NAME = 64, 2**63 - 1, 4_096


@dataclass(frozen=True, slots=True)
class Tensor:
    """``dtype`` is safetensors' word (``F32``), or the format's own where that has none."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that lie in one mapping; ``path`` is dotted, empty for the top."""

    path: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a file holds; ``metadata`` is what it says beside, as text."""

    format: Format
    groups: tuple[Group, ...]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def from_json(value: object) -> Inventory:
    """What the ``convert`` worker wrote, parsed; UnusableWeightsError unless all of it is as it should be.

    That worker has opened a stranger's file: its word is taken for names and sizes, and nothing else.
    """
    try:
        table = _mapping(value)
        groups = tuple(_group(path, tensors) for path, tensors in _mapping(table["groups"]).items())
        other = {name: _text(text) for name, text in _mapping(table["other"]).items()}
    except (KeyError, TypeError, ValueError) as error:
        message = f"the inventory of the file cannot be used: {error}"
        raise UnusableWeightsError(message, hint="save the weights as safetensors, and import that") from error
    return Inventory("torch", groups, other)


def is_shape(value: object) -> bool:
    """Whether it is a list of sizes."""
    if not isinstance(value, list):
        return False
    axes = cast("list[object]", value)
    return len(axes) <= _AXES and all(type(axis) is int and 0 <= axis <= _LONGEST for axis in axes)


def _group(path: str, tensors: object) -> Group:
    return Group(path, {name: _tensor(name, entry) for name, entry in _mapping(tensors).items()})


def _tensor(name: str, entry: object) -> Tensor:
    table = _mapping(entry)
    if not is_shape(table["shape"]):
        raise ValueError(f"{name[:100]} has no shape")
    return Tensor(name, _text(table["dtype"]), tuple(table["shape"]))


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a mapping is missing where {type(value).__name__} stands")
    table = cast("dict[str, Any]", value)
    for name in table:
        _text(name)
    return table


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _NAME:
        raise TypeError(f"a name or text is missing, or longer than {_NAME}")
    return value
