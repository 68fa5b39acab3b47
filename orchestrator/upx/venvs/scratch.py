"""Folders that are written beside and renamed: each with a lock that its makers hold, swept when nobody does."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Self

from upx.locks import try_lock
from upx.venvs.venv import LOCK_SUFFIX, SCRATCH_PREFIX

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_RENAME_TRIES = 20
_RENAME_PAUSE_S = 0.1


class Scratch:
    """A fresh folder in ``root`` for one build or removal; gone at the end of the ``with``, with what is in it.

    ``lock`` is held meanwhile, and longer by a child that inherits its descriptor: a folder into which somebody
    may still write is never swept, and never used by anybody else.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / f"{SCRATCH_PREFIX}{name}-{secrets.token_hex(6)}"

    def __enter__(self) -> Self:
        lock = try_lock(_lock_of(self.folder))
        if lock is None:  # 48 random bits met another's
            raise FileExistsError(self.folder)
        self.lock = lock
        self.folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if remove_tree(self.folder):
                self.lock.discard()
        finally:
            self.lock.close()


def sweep(root: Path) -> list[Path]:
    """Remove the scratch folders in ``root`` whose lock nobody holds; those that are gone now."""
    locks = {path.with_name(path.name.removesuffix(LOCK_SUFFIX)) for path in root.glob(f"{SCRATCH_PREFIX}*")}
    return [folder for folder in sorted(locks) if _sweep_one(folder)]


def rename(source: Path, target: Path) -> bool:
    """Rename a folder to a free name; False when the name is taken."""
    for attempt in range(_RENAME_TRIES):
        if target.exists():
            return False
        try:
            source.rename(target)
        except PermissionError:
            # Windows refuses while a scanner has one of the new files open; that passes.
            if attempt == _RENAME_TRIES - 1:
                raise
            time.sleep(_RENAME_PAUSE_S)
        except OSError:
            if target.exists():
                return False
            raise
        else:
            return True
    return False


def remove_tree(folder: Path) -> bool:
    """Remove a folder; False when something in it could not be removed, which a later sweep tries again."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder, ignore_errors=True)
    return not os.path.lexists(folder)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK_SUFFIX)


def _sweep_one(folder: Path) -> bool:
    lock = try_lock(_lock_of(folder))
    if lock is None:
        return False
    with lock:
        gone = lock.enforced and remove_tree(folder)
        if gone:
            lock.discard()
    return gone
