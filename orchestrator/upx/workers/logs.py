"""Log files of workers: where a worker's stdout and stderr go, rotated by size, and their last lines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ROTATE_BYTES = 1_000_000
MOST_FILES = 50
TAIL_BYTES = 16_384
TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class LogFile:
    """One worker's log; what it wrote begins at ``start``, since several workers in turn share a file."""

    path: Path
    start: int = 0

    def tail(self, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """The worker's last lines, without empty ones; none where the file is gone."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self.start if size >= self.start else 0, size - TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ()
        return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


def open_log(folder: Path, name: str) -> tuple[int, LogFile]:
    """A descriptor that appends to the log of that name, and where the new worker's words will begin."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.log"
    _rotate(path)
    _prune(folder)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return fd, LogFile(path, os.fstat(fd).st_size)


def _rotate(path: Path) -> None:
    try:
        if path.stat().st_size > ROTATE_BYTES:
            path.replace(path.with_suffix(".log.1"))
    except FileNotFoundError:
        return


def _prune(folder: Path) -> None:
    """Remove the oldest files; one that another process removed first is removed."""
    files = [(entry.stat().st_mtime, entry.path) for entry in os.scandir(folder) if entry.is_file()]
    for _, path in sorted(files)[: max(0, len(files) - MOST_FILES)]:
        (folder / path).unlink(missing_ok=True)
