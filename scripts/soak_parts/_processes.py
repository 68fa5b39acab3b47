"""Processes as soaks see them: whether one lives, and what a command says until it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

PROC = Path("/proc")


def lives(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def heard(command: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """What a command says until it ends; TimeoutExpired where that takes longer, and it has ended then too."""
    with command:
        try:
            return command.communicate(timeout=seconds)
        finally:
            # Leaving the block waits for its end, without a limit.
            command.kill()
