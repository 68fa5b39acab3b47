"""Requirement locks as text: which packages they hold, and a lock of some of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One requirement with its hashes; ``name`` is normalised, empty for an option line."""

    name: str
    text: str


def normalise(name: str) -> str:
    """The one spelling of a package's name (the name specification of the packaging guide)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(text: str) -> tuple[Entry, ...]:
    """The requirements of a lock, in order; comments are dropped."""
    logical: list[str] = []
    continued = False
    for line in text.splitlines():
        if not continued and (not line.strip() or line.lstrip().startswith("#")):
            continue
        if continued:
            logical[-1] += "\n" + line
        else:
            logical.append(line)
        continued = line.rstrip().endswith("\\")
    return tuple(Entry(_name(each), each) for each in logical)


def only(text: str, packages: Collection[str]) -> str:
    """A lock of these packages alone, names normalised; options are kept."""
    return _join(entry for entry in entries(text) if not entry.name or entry.name in packages)


def without(text: str, packages: Collection[str]) -> str:
    """A lock of all but these packages, names normalised; options are kept."""
    return _join(entry for entry in entries(text) if entry.name not in packages)


def names(text: str) -> frozenset[str]:
    """The normalised names of all packages of a lock."""
    return frozenset(entry.name for entry in entries(text) if entry.name)


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    return normalise(match.group()) if match else ""


def _join(chosen: Iterable[Entry]) -> str:
    return "".join(f"{entry.text}\n" for entry in chosen)
