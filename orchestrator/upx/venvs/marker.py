"""``upx-env.json``, the last file that a build writes: an environment with it is whole, without it is not there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from upx.venvs.venv import Venv

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MARKER = "upx-env.json"
SCHEMA = 1
FINGERPRINT_DIGITS = 12
_TEXTS = ("name", "key", "fingerprint", "flavour", "request", "interpreter", "uv", "python", "site_packages")
_NUMBERS = ("serial", "built")
_TABLES = ("versions", "records")


@dataclass(frozen=True, slots=True)
class Marker:
    """What was built. Paths are relative to the folder; ``built`` in seconds since the epoch.

    ``serial`` grows with every environment of that name: the newest wins, whatever the clock says. ``records``:
    sha256 of each RECORD and of ``pyvenv.cfg``, the files that no RECORD vouches for.
    """

    name: str
    key: str
    fingerprint: str
    serial: int
    flavour: str
    extras: tuple[str, ...]
    request: str
    interpreter: str
    uv: str
    built: int
    python: str
    site_packages: str
    versions: Mapping[str, str]
    records: Mapping[str, str]

    def venv(self, folder: Path) -> Venv:
        """The environment in ``folder`` that this marker describes."""
        python, site = folder / self.python, folder / self.site_packages
        _, _, generation = split_name(folder.name)
        suffix = f"-g{generation}" if generation > 1 else ""
        return Venv(folder, python, site, self.fingerprint + suffix, self.flavour, self.versions)


def write_marker(folder: Path, marker: Marker) -> None:
    """Make the environment in ``folder`` a whole one, at once and on the disk."""
    beside = folder / f".{MARKER}.tmp"
    with beside.open("w", encoding="utf-8") as file:
        json.dump({"schema": SCHEMA, **asdict(marker)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / MARKER)


def read_marker(folder: Path) -> Marker | None:
    """The marker in ``folder``; None where there is none that can be read, which means: not built."""
    try:
        raw: Any = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict):
        return None
    fields = cast("dict[str, Any]", raw)
    if fields.pop("schema", None) != SCHEMA or not _is_whole(fields):
        return None
    fields["extras"] = tuple(fields["extras"])
    return Marker(**fields)


def _is_whole(fields: Mapping[str, object]) -> bool:
    """Whether every field is there with the type that it was written with, and paths stay inside of the folder."""
    if set(fields) != {*_TEXTS, *_NUMBERS, *_TABLES, "extras"}:
        return False
    typed = (
        all(isinstance(fields[name], str) for name in _TEXTS)
        and all(type(fields[name]) is int for name in _NUMBERS)
        and all(_is_text_table(fields[name]) for name in _TABLES)
        and isinstance(fields["extras"], list)
    )
    return typed and not any(_leads_out(str(fields[name])) for name in ("python", "site_packages"))


def _is_text_table(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return all(isinstance(each, str) for each in cast("dict[str, object]", value).values())


def _leads_out(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts


def folder_name(name: str, fingerprint: str, generation: int = 1) -> str:
    """``<name>-<fp12>``, with ``-g<generation>`` from the second on."""
    suffix = f"-g{generation}" if generation > 1 else ""
    return f"{name}-{fingerprint[:FINGERPRINT_DIGITS]}{suffix}"


def split_name(folder: str) -> tuple[str, str, int]:
    """(name, fp12, generation) of a folder's name; ("", "", 0) for one that is not ours."""
    stem, mark, tail = folder.rpartition("-g")
    generation = int(tail) if mark and tail.isdecimal() else 1
    rest = stem if mark and tail.isdecimal() else folder
    name, _, short = rest.rpartition("-")
    if not name or len(short) != FINGERPRINT_DIGITS or not set(short) <= set("0123456789abcdef"):
        return "", "", 0
    return name, short, generation


def env_folders(root: Path, name: str | None = None) -> Iterator[Path]:
    """Folders in ``root`` that are named as environments (of ``name``) are; whole or not."""
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208 - names alone: this is on the path of every command
    except (FileNotFoundError, NotADirectoryError):
        return
    for each in names:
        owner = "" if each.startswith(".") else split_name(each)[0]
        if owner and name in {None, owner} and (root / each).is_dir():
            yield root / each


def find_marker(root: Path, name: str, key: str) -> tuple[Path, Marker] | None:
    """The newest whole environment of that key whose interpreter is still there."""
    best: tuple[Path, Marker] | None = None
    for folder in env_folders(root, name):
        marker = read_marker(folder)
        if marker is None or marker.key != key or not (folder / marker.python).exists():
            continue
        if best is None or (marker.serial, folder.name) > (best[1].serial, best[0].name):
            best = folder, marker
    return best
