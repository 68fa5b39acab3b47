"""Locks on files that end with their holder: flock where there is one, a locked byte on Windows."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# Far behind any content: on Windows a locked byte cannot be read by others.
WINDOWS_OFFSET = 2**30


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock without waiting; False where another holds one that excludes it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(fd, WINDOWS_OFFSET, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def open_file(path: Path) -> int:
    """Open (or create) a file whose lock is wanted; where nothing may be written any more, one that is there.

    OSError as ``os.open`` raises it.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        if sys.platform == "win32" or not path.exists():
            raise
        return os.open(path, os.O_RDONLY)


def open_locked(path: Path, *, shared: bool = False) -> int:
    """Open (or create) a file and lock it; -1 where another holds the lock, the descriptor otherwise."""
    fd = open_file(path)
    if try_lock(fd, shared=shared):
        return fd
    os.close(fd)
    return -1


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of an existing file; False where there is no such file.

    Two who ask at the same time do not take each other for the holder: they ask for the shared lock.
    """
    if not path.is_file():
        return False
    try:
        fd = open_file(path)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd, shared=True)
    finally:
        os.close(fd)


@contextmanager
def holding(path: Path, *, shared: bool = False) -> Generator[bool]:
    """Hold the lock for a block; yields False, without waiting, where another holds it."""
    fd = open_locked(path, shared=shared)
    try:
        yield fd >= 0
    finally:
        if fd >= 0:
            os.close(fd)
