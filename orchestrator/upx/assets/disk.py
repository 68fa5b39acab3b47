"""The disk below the store: its failures in the form that all errors have, links where it has them."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upx.errors import StoreFullError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# Never to fill a disk to its last byte: logs and registry entries are written too.
RESERVE = 64 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def store_errors(root: Path) -> Generator[None]:
    """The file system's failures below ``root``: StoreFullError, or WeightsError with the name at fault."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full(root, 0, 0) from error
        what = f"{error.strerror or type(error).__name__}: {error.filename or root}"
        raise WeightsError(
            f"the store of weights cannot be used ({what})", hint=f"check space and permissions of {root}"
        ) from error


def need(root: Path, size: int) -> None:
    """StoreFullError unless ``size`` more bytes fit."""
    there = next(each for each in (root, *root.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < size + RESERVE:
        raise full(root, size, free)


def full(root: Path, needed: int, free: int) -> StoreFullError:
    """The error for a disk without space; figures in bytes, 0 where they are not known."""
    figures = f": {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free" if needed else ""
    return StoreFullError(
        f"no space left for weights in {root}{figures}",
        hint="upx models du, upx models rm NAME, or set UPX_HOME to a larger disk",
    )


def link_or_copy(blob: Path, target: Path) -> None:
    """The same file by another name, or a copy of it."""
    try:
        target.hardlink_to(blob)
    except OSError:
        shutil.copyfile(blob, target)
