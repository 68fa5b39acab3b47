"""Compare an environment's files with the RECORDs of its packages: existence and size, or every hash."""

from __future__ import annotations

import base64
import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.venvs.lockfile import normalise
from upx.venvs.venv import Damage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from upx.venvs.venv import DamageKind

CONFIG = "pyvenv.cfg"
_FIELDS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a RECORD: ``digest`` as ``sha256=<urlsafe base64>``; empty and None where nothing is vouched."""

    path: str
    digest: str
    size: int | None


def records_of(folder: Path, site_packages: Path) -> dict[str, str]:
    """Path relative to ``folder`` -> sha256 in hex, of every RECORD and of ``pyvenv.cfg``."""
    paths = [folder / CONFIG, *(info / "RECORD" for info in sorted(site_packages.glob("*.dist-info")))]
    return {path.relative_to(folder).as_posix(): _hex(path) for path in paths if path.is_file()}


def check_installed(folder: Path, site_packages: Path, *, hashes: bool) -> list[Damage]:
    """Damage in a virtualenv without a marker yet: everything that its own RECORDs say."""
    found: list[Damage] = []
    for info in sorted(site_packages.glob("*.dist-info")):
        found += _check_package(info, site_packages, hashes=hashes)
    if not (folder / CONFIG).is_file():
        found.append(Damage(folder / CONFIG, "", "missing"))
    return found


def check_recorded(
    folder: Path,
    site_packages: Path,
    records: Mapping[str, str],
    *,
    hashes: bool,
    packages: Collection[str] | None = None,
) -> list[Damage]:
    """Damage in a whole environment, whose RECORDs have the digests ``records``; of ``packages`` alone if given."""
    found: list[Damage] = []
    for relative, expected in records.items():
        path = folder / relative
        package = package_of(path.parent.name) if relative != CONFIG else ""
        if packages is not None and package not in packages:
            continue
        kind = _file_damage(path, Row(relative, "", None), hashes=False) or ("hash" if _hex(path) != expected else None)
        if kind is not None:
            found.append(Damage(path, package, kind))
        elif package:
            found += _check_package(path.parent, site_packages, hashes=hashes)
    return found


def package_of(dist_info: str) -> str:
    """The normalised name of the package whose ``.dist-info`` folder is called that."""
    return normalise(dist_info.removesuffix(".dist-info").rpartition("-")[0])


def read_record(text: str) -> list[Row] | None:
    """The rows of a RECORD; None for one that was cut or overwritten."""
    rows = list(_rows(csv.reader(text.splitlines()))) if text.endswith("\n") and "\0" not in text else []
    whole = [row for row in rows if row is not None]
    return whole if whole and len(whole) == len(rows) else None


def _rows(lines: Iterable[list[str]]) -> Iterator[Row | None]:
    for fields in lines:
        if len(fields) != _FIELDS or not fields[0] or (fields[2] and not fields[2].isdecimal()):
            yield None
        else:
            yield Row(fields[0], fields[1], int(fields[2]) if fields[2] else None)


def _check_package(info: Path, site_packages: Path, *, hashes: bool) -> list[Damage]:
    package, record = package_of(info.name), info / "RECORD"
    try:
        text = record.read_bytes().decode("utf-8", "replace")
    except OSError:
        return [Damage(record, package, "missing")]
    rows = read_record(text)
    if rows is None:
        return [Damage(record, package, "size")]
    found: list[Damage] = []
    for row in rows:
        path = site_packages / row.path
        kind = _file_damage(path, row, hashes=hashes)
        if kind is not None:
            found.append(Damage(path, package, kind))
    return found


def _file_damage(path: Path, row: Row, *, hashes: bool) -> DamageKind | None:
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:
        size = None
    if size is None:
        return "missing"
    if row.size is not None and size != row.size:
        return "size"
    if not hashes or not row.digest:
        return None
    return None if _matches(path, row.digest) else "hash"


def _matches(path: Path, expected: str) -> bool:
    name, _, value = expected.partition("=")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, name).digest()
    except (OSError, ValueError):  # unreadable, or a hash that does not exist: not what was installed
        return False
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == value


def _hex(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
