"""The groups of a checkpoint: each mapping or list in it that directly holds tensors, by its dotted path."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Deeper than any trainer nests, and more than any holds: a list that holds one list a thousand times, and so on, would
# have no end.
DEPTH = 64
VALUES = 1_000_000


@dataclass
class Groups:
    """``tensors``: path -> name -> tensor, the top's path being empty; ``other``: path of each value that is none."""

    tensors: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    other: dict[str, object] = field(default_factory=dict)
    seen: int = 0


def find_groups(top: Any) -> Groups:
    """Walk what was opened; BadInputError where two paths are one, or where there is no end."""
    if isinstance(top, torch.Tensor):
        return Groups({"": {"tensor": top}})
    found = Groups()
    # A container that lies in two places is listed in both, one that holds itself not again.
    _walk(found, "", top, ())
    return found


def _walk(found: Groups, path: str, container: Any, above: tuple[int, ...]) -> None:
    if id(container) in above:
        return
    if len(above) >= DEPTH or found.seen > VALUES:
        raise BadInputError(f"{path[:100]}: nested deeper than {DEPTH} levels, or more than {VALUES} values")
    own: dict[str, torch.Tensor] = {}
    for name, value in _items(container):
        found.seen += 1
        inner = f"{path}.{name}" if path else name
        if isinstance(value, torch.Tensor):
            if name in own:
                raise BadInputError(f"two tensors are called {inner!r}")
            own[name] = value
        elif _is_container(value):
            _walk(found, inner, value, (*above, id(container)))
        else:
            found.other[inner] = value
    if own and path in found.tensors:
        raise BadInputError(f"two groups are called {path!r}")
    if own:
        found.tensors[path] = own


def _is_container(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple, argparse.Namespace)) and not isinstance(value, torch.Size)


def _items(container: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(container, argparse.Namespace):
        container = vars(container)
    pairs = container.items() if isinstance(container, Mapping) else enumerate(container)
    for name, value in pairs:
        yield str(name), value
