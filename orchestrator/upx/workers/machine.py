"""Facts of this machine and its processes, read from the system: boot, start times, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@cache
def boot_id() -> str:
    """A name of this boot of this machine; processes of another boot are gone."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return _boot_by_sysctl() if sys.platform == "darwin" else "boot"


def _boot_by_sysctl() -> str:
    command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "boot"
    return done.stdout.strip() or "boot"


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 where the system does not say.

    A pid alone may be another process by now; pid and start together are not.
    """
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        # The command's name stands in brackets and may hold anything; the fields follow the last bracket.
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes; 0 where the system does not say."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def available_memory() -> int:
    """Bytes that can be had without swapping; 0 where the system does not say."""
    try:
        lines = (PROC / "meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    amount = fields.get("MemAvailable", "0 kB").split()
    return int(amount[0]) * 1024


def pid_lives(pid: int) -> bool:
    """Whether there is a process of that number; a zombie counts."""
    if sys.platform == "win32":
        from upx.workers.windows import pid_lives as asked

        return asked(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
