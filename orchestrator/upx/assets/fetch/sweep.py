"""Remove parts that nobody came back for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from upx.locks import try_lock

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIXES = (".part.json", ".part", ".lock")


def sweep_parts(parts: Path, older_than_s: float) -> list[Path]:
    """Remove the parts in ``parts`` that nobody fetches and that did not grow for so long; those that are gone now.

    Where locks are not enforced, age alone tells.
    """
    keys = {key for path in _files(parts) if (key := _key(path.name))}
    return [path for key in sorted(keys) if (path := _sweep_one(parts, key, time.time() - older_than_s))]


def remove_part(parts: Path, key: str) -> None:
    """Remove a part, its note, and the note that a killed process was just writing; for who holds its lock."""
    for path in (parts / f"{key}.part", parts / f"{key}.part.json", *parts.glob(f".{key}.part.json.*")):
        path.unlink(missing_ok=True)


def _files(parts: Path) -> list[Path]:
    return list(parts.iterdir()) if parts.is_dir() else []


def _key(name: str) -> str:
    """The key that a file belongs to; also of a note that a killed process was just writing."""
    for suffix in _SUFFIXES:
        head, found, _rest = name.removeprefix(".").partition(suffix)
        if found:
            return head
    return ""


def _sweep_one(parts: Path, key: str, before: float) -> Path | None:
    part = parts / f"{key}.part"
    lock = try_lock(parts / f"{key}.lock")
    if lock is None:
        return None
    with lock:
        if _age(part) > before:
            return None
        gone = part.exists()
        remove_part(parts, key)
        lock.discard()
    return part if gone else None


def _age(part: Path) -> float:
    """When it last grew; long ago for one that is not there."""
    try:
        return part.stat().st_mtime
    except FileNotFoundError:
        return 0.0
