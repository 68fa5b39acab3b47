"""Files that only their user may read, written whole or not at all; and the lock under which one is changed."""

from __future__ import annotations

import os
import secrets
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upx import locks
from upx.config import IS_WINDOWS
from upx.errors import UsageError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

LOCK_S = 5.0


def write_private(path: Path, text: str) -> None:
    """Write beside, 0600, then rename; OSError leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_private(path: Path) -> str:
    """What a secret file holds; UsageError where others can read or write it, OSError where it is not there."""
    check_private(path.parent)
    if not IS_WINDOWS and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(
            f"{path} can be read by others",
            hint=f"chmod 600 {path}; if it holds a secret key, make another: upx key new",
        )
    return path.read_text(encoding="utf-8")


def is_private(folder: Path) -> bool:
    """Whether it is a folder, no link to one, that only this user can enter; OSError where it is not there."""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        return False
    return IS_WINDOWS or (facts.st_uid == os.getuid() and not stat.S_IMODE(facts.st_mode) & 0o077)


def check_private(folder: Path) -> None:
    """UsageError for a folder in which others could put, or see, a secret; OSError where it is not there."""
    if not is_private(folder.resolve()):
        raise UsageError(
            f"{folder} is not private: others can enter it, or it is not yours", hint=f"chmod 700 {folder}"
        )


@contextmanager
def changing(folder: Path) -> Generator[None]:
    """While this lasts nobody else changes the folder's files; WorkerError where somebody does for seconds."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_private(folder)
    until = time.monotonic() + LOCK_S
    while (lock := locks.try_lock(folder / ".lock")) is None:
        if time.monotonic() > until:
            raise WorkerError(f"{folder} is held by another upx command", hint="end upx commands that hang")
        time.sleep(0.01)
    with lock:
        yield
