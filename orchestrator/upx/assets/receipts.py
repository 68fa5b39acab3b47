"""Receipts: where a file of the store came from, what it is, and on what terms."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from upx.errors import WeightsError
from upx.notes import read_note, write_note

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = 1
_HALVES = re.compile("[\ud800-\udfff]")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file came from; the words are ``Receipt``'s."""

    source: Mapping[str, str]
    address: str = ""
    revision: str = ""
    verified: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One file of one model, as it was put into the store.

    ``sha256`` and ``size`` (bytes) are of the file that is kept; ``file`` its name below the model's folder.
    ``source``: kind and keys of where it came from; ``address`` and ``revision`` as they were found there.
    ``verified``: who vouched for the bytes: "manifest", "hub", "import" (a person brought them), or "" for nobody.
    ``original``: SHA-256 of the file that this one was converted from. ``licence`` names the terms, ``accepted`` says
    when somebody accepted them (ISO 8601, UTC), empty where nobody had to.
    """

    model: str
    role: str
    file: str
    sha256: str
    size: int
    source: Mapping[str, str] = field(default_factory=dict[str, str])
    address: str = ""
    revision: str = ""
    verified: str = ""
    original: str = ""
    licence: str = ""
    accepted: str = ""
    time: str = ""

    def write(self, path: Path) -> None:
        """Keep it at ``path``, whole or not at all; OSError where that fails."""
        write_note(path, {"schema": SCHEMA, **dataclasses.asdict(self)})


def read_receipt(path: Path) -> Receipt | None:
    """The receipt at ``path``; None where there is none, or one that nobody of us has written."""
    note = read_note(path)
    names = [each.name for each in dataclasses.fields(Receipt)]
    if note.pop("schema", None) != SCHEMA or set(note) != set(names):
        return None
    if not all(_right(name, note[name]) for name in names):
        return None
    return Receipt(**note)


def named_digests(path: Path) -> set[str]:
    """Every digest that a receipt names, whatever else stands in it, also one of a later version.

    WeightsError where it cannot be read: whose bytes may be removed is then not known.
    """
    try:
        return set(SHA256.findall(path.read_text("ascii", errors="replace")))
    except OSError as error:
        raise WeightsError(
            f"the receipt {path} cannot be read ({error.strerror}), so nothing is removed",
            hint="mend its permissions, or remove it if it is yours",
        ) from error


def now() -> str:
    """This moment, as receipts write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _right(name: str, value: Any) -> bool:
    if name == "size":
        return type(value) is int and value >= 0
    if name == "source":
        return isinstance(value, dict) and all(is_text(each) for each in cast("dict[Any, Any]", value).values())
    if name == "file":
        return is_text(value) and _stays_inside(value)
    if name == "sha256":
        return isinstance(value, str) and SHA256.fullmatch(value) is not None
    return is_text(value)


def is_text(value: Any) -> bool:
    """Whether it is text that can be shown and written: half a character (a lone surrogate) cannot."""
    return isinstance(value, str) and not _HALVES.search(value)


def _stays_inside(path: str) -> bool:
    """Whether a path leads nowhere but below its folder, on every system."""
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts and not set(path) & set("\\:\0")
