"""Refuses a file whose tensors are not exactly those that are wanted, naming the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

Shape = tuple[int, ...]


def check_names(role: str, has: Mapping[str, Shape], wants: Mapping[str, Shape]) -> None:
    """BadInputError naming the first tensor that is missing, of another shape, or not wanted."""
    for name, shape in wants.items():
        if name not in has:
            more = _first_unexpected(has, wants)
            raise BadInputError(f"{role}: {name} is missing" + (f", and {more} is unexpected" if more else ""))
        if has[name] != shape:
            raise BadInputError(f"{role}: {name} has the shape {list(has[name])}, wanted is {list(shape)}")
    more = _first_unexpected(has, wants)
    if more:
        raise BadInputError(f"{role}: {more} is unexpected")


def _first_unexpected(has: Mapping[str, Shape], wants: Mapping[str, Shape]) -> str:
    return next((name for name in sorted(has) if name not in wants), "")
