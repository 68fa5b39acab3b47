"""The disk below the store: its failures in the form that all errors have, locks, scratch folders, copies, links."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upx.errors import StoreFullError, WeightsError
from upx.locks import HeldLock, is_locked, try_lock

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# Never to fill a disk to its last byte: logs and registry entries are written too.
RESERVE = 64 << 20
LOCK_WAIT_S = 60.0
BLOCK = 1 << 20
MADE, LOCK = "made-", ".lock"
_POLL_S = 0.05
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
    wanted = f"{needed / 1e6:.0f} MB are needed and {RESERVE / 1e6:.0f} MB stay free"
    figures = f": {wanted}, {free / 1e6:.0f} MB are free" if needed else ""
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


def wait_for(path: Path, *, shared: bool, timeout: float = LOCK_WAIT_S) -> HeldLock:
    """The lock of ``path``; WeightsError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (lock := try_lock(path, shared=shared)) is None:
        if time.monotonic() > deadline:
            raise WeightsError(f"another process has held {path} for {timeout:.0f} s", hint="wait for it, or end it")
        time.sleep(_POLL_S)
    return lock


@contextmanager
def scratch(root: Path, parts: Path) -> Generator[Path]:
    """A fresh folder in ``parts`` whose lock is held meanwhile, so that a sweep tells it from a killed maker's."""
    folder = parts / f"{MADE}{secrets.token_hex(8)}"
    with store_errors(root), wait_for(folder.with_name(folder.name + LOCK), shared=False) as lock:
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.discard()


def sweep_scratch(parts: Path) -> None:
    """Remove the scratch folders in ``parts`` whose maker has gone."""
    for lock in parts.glob(f"{MADE}*{LOCK}"):
        if not is_locked(lock):
            shutil.rmtree(lock.with_name(lock.name.removesuffix(LOCK)), ignore_errors=True)
            lock.unlink(missing_ok=True)


def copy_hashed(source: Path, target: Path) -> str:
    """Copy a file, and give the SHA-256 in hex of the bytes that were written."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as write:
        while count := read.readinto(buffer):
            digest.update(buffer[:count])
            os.write(write.fileno(), buffer[:count])
    return digest.hexdigest()
