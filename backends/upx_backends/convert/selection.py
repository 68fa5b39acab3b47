"""Which tensors of a group are copied, and under which names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from upx_backends.convert.groups import Groups


def select(groups: Groups, group: str, *, strip: str, leave: Sequence[str]) -> dict[str, torch.Tensor]:
    """The group's tensors by the name without ``strip``, sorted, without those that ``leave`` names or matches."""
    if group not in groups.tensors:
        there = ", ".join(repr(name) for name in list(groups.tensors)[:10]) or "no tensors at all"
        raise BadInputError(f"there is no group {group!r}: {there}")
    chosen: dict[str, torch.Tensor] = {}
    exact, patterns = frozenset(leave), [each for each in leave if set(each) & set("*?[")]
    for full, tensor in sorted(groups.tensors[group].items()):
        name = full.removeprefix(strip)
        if name in exact or any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        if name in chosen:
            raise BadInputError(f"two tensors of {group!r} are called {name!r} without {strip!r}")
        chosen[name] = tensor
    if not chosen:
        raise BadInputError(f"nothing of {group!r} is left to copy")
    return chosen
