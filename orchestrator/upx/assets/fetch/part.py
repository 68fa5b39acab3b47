"""A file on its way: bytes on the disk, their hash so far, and a note of where they came from.

Bytes are written as they come, without a buffer of ours: what a killed process has written is continued by the next.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Self

from upx.assets.fetch.failures import FailedError
from upx.assets.fetch.sweep import remove_part
from upx.errors import CancelledError, FetchError, StoreFullError
from upx.notes import read_note, write_note

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

# Left free whatever is fetched.
SPARE = 64 * 1024 * 1024
# Free space is looked at again after that many bytes.
SPACE_STEP = 64 * 1024 * 1024
_BLOCK = 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND
_EXTRA = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class Part:
    """``<parts>/<key>.part``, open in a ``with``; ``name`` is for messages."""

    def __init__(self, parts: Path, key: str, name: str) -> None:
        self.key = key
        self.path = parts / f"{key}.part"
        self.note_path = parts / f"{key}.part.json"
        self.name = name
        self.size = 0
        self.note = read_note(self.note_path)
        self._hash = hashlib.sha256()
        self._fd = -1
        self._look_at = 0

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self.path, _FLAGS | _EXTRA, 0o644)
        except OSError as error:
            raise self._cannot("written", error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def sha256(self) -> str:
        """Of all that is there."""
        return self._hash.hexdigest()

    def load(self, cancel: threading.Event, on_block: Callable[[int], None]) -> None:
        """Hash what an earlier run left; ``on_block`` is told how many bytes that is so far."""
        block = bytearray(_BLOCK)
        view = memoryview(block)
        try:
            os.lseek(self._fd, 0, os.SEEK_SET)
            with open(self._fd, "rb", buffering=0, closefd=False) as file:
                while count := file.readinto(block):
                    if cancel.is_set():
                        raise CancelledError(f"{self.name}: cancelled")
                    self._hash.update(view[:count])
                    self.size += count
                    on_block(self.size)
        except OSError as error:
            raise self._cannot("read", error) from error

    def append(self, data: bytes | memoryview) -> None:
        """Write and hash more of it; StoreFullError when the disk is full, and then what is there stays."""
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._fd, view)
            except OSError as error:
                raise self._cannot("written", error) from error
            self._hash.update(view[:count])
            self.size += count
            view = view[count:]

    def restart(self) -> None:
        """Throw away what is there."""
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise self._cannot("written", error) from error
        self.size = self._look_at = 0
        self._hash = hashlib.sha256()

    def remember(self, **facts: str) -> None:
        """Note where the bytes come from; where that cannot be written, a later run starts anew."""
        if facts == self.note:
            return
        self.note = dict(facts)
        try:
            write_note(self.note_path, facts)
        except OSError as error:
            raise self._cannot("written", error) from error

    def require_space(self, total: int) -> None:
        """StoreFullError unless what is missing of ``total`` bytes fits, with some to spare."""
        self._look_at = self.size + SPACE_STEP
        needed = max(total - self.size, 0) + SPARE
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise self._full(f"{megabytes(needed)} are needed and {megabytes(free)} are free")

    def keep_space(self, total: int) -> None:
        """The same, now and then."""
        if self.size >= self._look_at:
            self.require_space(total)

    def discard(self) -> None:
        """Close it, and remove the file, if it was not renamed, and its notes, one that a kill cut short too."""
        self.close()
        remove_part(self.path.parent, self.key)

    def _cannot(self, what: str, error: OSError) -> FetchError | StoreFullError:
        if error.errno in _FULL:
            free = shutil.disk_usage(self.path.parent).free
            return self._full(f"the disk was full after {megabytes(self.size)}, {megabytes(free)} are free")
        hint = f"look at the folder {self.path.parent}"
        return FetchError(f"{self.name}: its part cannot be {what}: {error.strerror}", hint=hint)

    def _full(self, why: str) -> StoreFullError:
        hint = f"free some space on the disk of {self.path.parent}, or remove models with `upx models rm`"
        return StoreFullError(f"{self.name}: no space: {why}", hint=hint)


def megabytes(count: int) -> str:
    """A size for people."""
    return f"{count / 1e6:,.1f} MB"


def length_mismatch(announced: int, expected: int) -> FailedError:
    """Two lengths that should be one."""
    return FailedError(f"announces {announced} bytes, and {expected} are expected", kind="content")
