"""Open a checkpoint with torch's restricted unpickler (``weights_only=True``), the only way there is here to a pickle.

A zip's tensors are mapped, not read; the older form, one pickle after the other with raw data behind, is read whole.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch._weights_only_unpickler import _get_allowed_globals

from upx_backends.convert.allowed import ALLOWED
from upx_backends.convert.pickled import names_in
from upx_backends.convert.safe import open_safe
from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Form = Literal["zip", "pickle", "safetensors"]
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
# The older form: a number, a version, facts of the system, the object, the keys of its storages.
_OLD_PICKLES = 5
_NAMED = 12


def open_checkpoint(path: Path) -> Any:
    """The object in the file; BadInputError when it is none, or asks for anything that is not on the list.

    Its words say "it": whoever sent the order knows the file by a better name.
    """
    form = _form(path)
    try:
        if form == "safetensors":
            return open_safe(path)
        asked = _asked_in_zip(path) if form == "zip" else _asked_in_pickles(path)
        _refuse_unknown(asked)
        return _load(path, mapped=form == "zip" and _stored(path))
    except (BadInputError, MemoryError):
        raise
    except Exception as error:  # a file that is not what it says breaks its reader in any way there is
        raise BadInputError(f"it is damaged or no checkpoint ({_first_line(error)})") from error


def _form(path: Path) -> Form:
    """What it begins like; BadInputError when that is nothing that is opened here."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise BadInputError(f"it cannot be read: {error.strerror}") from error
    if start.startswith(ZIP):
        return "zip"
    # First: the length that it begins with may be any byte, a pickle's mark too.
    if start[8:] == b"{":
        return "safetensors"
    if start.startswith(PICKLE):
        return "pickle"
    raise BadInputError("it is no file that torch saved")


def _asked_in_zip(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise BadInputError("it is a TorchScript archive, which holds a program; its weights are needed")
        asked: set[str] = set()
        for name in names:
            if name.endswith(".pkl"):
                with archive.open(name) as stream:
                    asked |= names_in(io.BufferedReader(stream))
        return asked


def _asked_in_pickles(path: Path) -> set[str]:
    with path.open("rb") as stream:
        return names_in(stream, pickles=_OLD_PICKLES)


def _refuse_unknown(asked: Iterable[str]) -> None:
    unknown = sorted(set(asked) - _get_allowed_globals().keys() - ALLOWED.keys())
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        names = ", ".join(name[:100] for name in unknown[:_NAMED])
        raise BadInputError(f"it asks for {names}{more}: weights need none of that, and nothing was run")


def _stored(path: Path) -> bool:
    """Whether every member lies uncompressed, as torch writes them: others cannot be mapped."""
    with zipfile.ZipFile(path) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _load(path: Path, *, mapped: bool) -> Any:
    with (
        torch.serialization.safe_globals([(thing, name) for name, thing in ALLOWED.items()]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=mapped)


def _first_line(error: Exception) -> str:
    """What torch says goes on for a page, and advises to trust the file."""
    text = str(error).replace("WeightsUnpickler error: ", "")
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Weights only load failed" not in line]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
