"""The registry entry of this worker: written through the locked descriptor it was born with, removed when it leaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional

if TYPE_CHECKING:
    from upx_protocol.options import WorkerOptions
    from upx_protocol.pulse import Status


SCHEMA = 1
_START_FIELD = 22


class Entry:
    """The file that makes a worker findable; does nothing where ``options.entry`` is empty.

    A reader that finds it empty or torn takes the worker for one that is starting; the flock says who is alive.
    """

    def __init__(self, options: WorkerOptions, *, endpoint: str, curve_public: str = "") -> None:
        self._path = options.entry
        self._fd = options.lock_fd
        self._own = bool(self._path) and self._fd < 0
        self._removed = False
        self._length = 0
        self._written: Optional[Status] = None
        self._facts: Dict[str, Any] = {
            "schema": SCHEMA,
            "identity": options.identity,
            "endpoint": endpoint,
            "pid": os.getpid(),
            "boot_id": boot_id(),
            "start_ticks": start_ticks(os.getpid()),
            "backend": options.backend,
            "device": options.device,
            "tied": options.tied,
            "idle_s": options.idle_s,
            "started": time.time(),
            "env": options.env,
            "build": options.build,
            "curve_public": curve_public,
            "box": options.box,
        }

    def write(self, status: Status) -> None:
        """Say what the worker does, if that has changed since the last time."""
        if not self._path or self._removed or status == self._written:
            return
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        now = time.time()
        doing = {
            "model": status.model,
            "hosts": status.hosts,
            "busy_since": now if status.busy else None,
            "last_used": now,
        }
        # Padded, so that a shorter text needs no second step in which a reader could see a torn one.
        data = json.dumps({**self._facts, **doing}).encode().ljust(self._length)
        self._length = len(data)
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.write(self._fd, data)
        os.ftruncate(self._fd, len(data))
        self._written = status

    def present(self) -> bool:
        """Whether the file at the path is still ours; a worker that nobody can find has to leave."""
        if not self._path or self._fd < 0:
            return True
        try:
            there, ours = Path(self._path).stat(), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def remove(self) -> None:
        """Stop being found. An entry that is somebody else's by now stays."""
        if self._path and not self._removed and self.present():
            Path(self._path).unlink(missing_ok=True)
        self._removed = True

    def close(self) -> None:
        """Close the file if it was opened here; an inherited lock ends with the process."""
        if self._own and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def boot_id() -> str:
    """Names this boot of the machine; empty where the system has no such name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def start_ticks(pid: int) -> int:
    """When a process was born, in clock ticks after boot; 0 where the system does not tell."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return 0
    # The second field is the program's name, in parentheses, and may hold anything.
    after_name = path.read_text().rpartition(")")[2].split()
    return int(after_name[_START_FIELD - 3])


def resident_bytes() -> int:
    """This process's resident set in bytes; 0 where the system does not tell."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0
