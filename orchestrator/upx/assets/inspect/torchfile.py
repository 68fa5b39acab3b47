"""What may be looked at of a file of torch without unpickling it: its container, a zip or the older bare pickle."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Container: TypeAlias = Literal["zip", "pickle"]
MEMBERS = 1_000_000
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
PROTOCOLS = 5
# Where a tar says that it is one.
_TAR, _TAR_AT = b"ustar", 257
# The least that a member takes: in the directory, and before its data (PKWARE's APPNOTE, 4.3.12 and 4.3.7).
_DIRECTORY_ENTRY, _LOCAL_HEADER = 46, 30
# The end record, with the longest comment; its signature; and the size of the directory, in the wide form too (4.3.14).
_END, _COMMENT, _END_SIGN = 22, 65_535, b"PK\x05\x06"
_WIDE_SIGN, _WIDE_SIZE_AT, _UNTOLD = b"PK\x06\x06", 40, 0xFFFFFFFF
_ENCRYPTED = 0x1
_ODD = re.compile(r"[\x00-\x1f\x7f\\]|^/|^[A-Za-z]:|(^|/)\.\.(/|$)")


class _WrongError(ValueError):
    """What is wrong, in words that follow the file's name."""


def check_container(path: Path) -> Container:
    """Which container it is; UnusableWeightsError for one that is cut, swells, or whose members lie about themselves.

    Whether what is inside is safe to open, this cannot tell: only the ``convert`` worker opens it.
    """
    try:
        container = _container(path)
        if container == "zip":
            _check_zip(path)
    except OSError as error:
        raise UnusableWeightsError(f"{path.name} cannot be read: {error.strerror}", hint="check the file") from error
    except _WrongError as error:
        hint = "get it again from where it came, or weights as safetensors"
        raise UnusableWeightsError(f"{path.name} {error}", hint=hint) from error
    return container


def _container(path: Path) -> Container:
    with path.open("rb") as file:
        head = file.read(_TAR_AT + len(_TAR))
    if head.startswith(ZIP):
        return "zip"
    if head[_TAR_AT:] == _TAR:
        raise _WrongError("is a tar, the oldest form of torch's files, which cannot be opened safely")
    if head[:1] == PICKLE and len(head) > 1 and head[1] <= PROTOCOLS:
        return "pickle"
    raise _WrongError("is no file that torch saved")


def _check_zip(path: Path) -> None:
    size = path.stat().st_size
    # Before they are read: a million members take as many objects.
    if _directory_bytes(path, size) > MEMBERS * _DIRECTORY_ENTRY:
        raise _WrongError(f"may hold more than {MEMBERS} members")
    try:
        with zipfile.ZipFile(path) as archive:
            members, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as error:
        raise _WrongError(f"is no whole zip: {error}") from error
    _check_members(members)
    _check_sizes(members, size)
    _check_places(members, end)


def _directory_bytes(path: Path, size: int) -> int:
    """How long the directory says that it is, in either form; the longer, since readers differ in which they take."""
    with path.open("rb") as file:
        file.seek(max(0, size - _END - _COMMENT - 100))
        tail = file.read()
    at = tail.rfind(_END_SIGN)
    if at < 0 or at + _END > len(tail):
        raise _WrongError("is no whole zip: its end is missing")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    length = 0 if length == _UNTOLD else length
    wide = tail.rfind(_WIDE_SIGN, 0, at)
    if wide < 0:
        return length
    return max(length, int.from_bytes(tail[wide + _WIDE_SIZE_AT : wide + _WIDE_SIZE_AT + 8], "little"))


def _check_members(members: Sequence[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        if not name or _ODD.search(name):
            raise _WrongError(f"has a member whose name leads out of it: {name[:100]!r}")
        if name in seen:
            raise _WrongError(f"has two members of one name: {name[:100]!r}")
        if member.flag_bits & _ENCRYPTED:
            raise _WrongError(f"has an encrypted member: {name[:100]!r}")
        seen.add(name)
    if not any(name.endswith("/data.pkl") for name in seen):
        raise _WrongError("is a zip that torch did not write: no member is data.pkl")


def _check_sizes(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    inflated = 0
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            inflated += member.file_size
        elif member.file_size != member.compress_size:
            raise _WrongError(f"has a member with two sizes: {member.filename[:100]!r}")
        if inflated > size:
            raise _WrongError(f"would swell beyond its own size at {member.filename[:100]!r}")


def _check_places(members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """One member after the other, from the first byte to the directory."""
    reached, before = 0, ""
    for member in sorted(members, key=lambda each: each.header_offset):
        if member.header_offset < reached or (not before and member.header_offset != 0):
            raise _WrongError(f"has members that overlap: {before[:100]!r} and {member.filename[:100]!r}")
        length = _LOCAL_HEADER + len(member.orig_filename) + member.compress_size
        reached, before = member.header_offset + length, member.filename
    if reached > end:
        raise _WrongError(f"was cut in {before[:100]!r}")
