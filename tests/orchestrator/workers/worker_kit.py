"""What the tests of workers import: deadlines for a suite, eyes on a pool, tiles, and a stand-in worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import upx_backends.nearest
from upx.workers import machine, registry
from upx.workers.plan import Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.config import Settings
    from upx.workers.plan import WorkerPlan
    from upx.workers.pool import WorkerPool

NEAREST = Path(upx_backends.nearest.__file__).parent
# Short enough for a suite, long enough for a busy machine with two cores.
QUICK = Timeouts(busy=1.2, busy_first=1.2, backoff_most=0.4, ping=0.3, misses=5, start=30.0, load=30.0, hello=1.0)


class Eyes:
    """A pool and everything that it reported."""

    def __init__(self, pool: WorkerPool, events: list) -> None:
        self.pool, self.events = pool, events

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def submit(self, *tiles: np.ndarray, job: int = 1, out_dtype: str = "uint8", **params) -> list:
        return self.pool.submit(list(tiles), out_dtype=out_dtype, job=job, params=params)

    def up(self, *tiles: np.ndarray, **params) -> list:
        return [future.result(30).array for future in self.submit(*tiles, **params)]

    def links(self) -> list:
        return list(self.pool._supervisor._links.values())

    def pids(self) -> list[int]:
        return [link.process.pid for link in self.links() if link.process is not None]

    def in_flight(self) -> int:
        """Wait until a worker has said or noted that it computes a batch; that worker's pid."""
        for _ in until(10):
            for number, worker in list(self.pool._supervisor._state.workers.items()):
                link = self.pool._supervisor._links.get(number)
                if link is not None and link.process is not None and (worker.started or computes(link)):
                    return link.process.pid
        raise AssertionError("no tile came in flight")


def computes(link) -> bool:
    """Whether a worker has noted in the ring that it computes: the host may look too late for a short batch."""
    ring = link.talk.shared.ring if link.talk is not None else None
    return ring is not None and any(ring._memory.begun(loan.bufs[0]) for loan in list(ring._loans.values()))


def until(seconds: float, *, step: float = 0.01) -> Iterator[None]:
    """Look again and again, but not for ever."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(step)


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits for its parent, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes between opening and reading
        return False


def gone_within(pid: int, seconds: float) -> bool:
    return any(not lives(pid) for _ in until(seconds))


def noise(seed: int, side: int = 48, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (side, side, 3), dtype=np.uint8).astype(dtype)


def colour(tile: np.ndarray) -> str:
    """The first pixel as nearest's fault rules name it."""
    return "{:02x}{:02x}{:02x}".format(*tile[0, 0])


def enlarged(tile: np.ndarray, scale: int = 4) -> np.ndarray:
    return np.repeat(np.repeat(tile, scale, axis=0), scale, axis=1)


@contextmanager
def stand_in(settings: Settings, plan: WorkerPlan, endpoint: str) -> Iterator[subprocess.Popen]:
    """A registry entry that leads to ``endpoint``; the process behind it sleeps, and may be killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"]) as process:
        fd, path = registry.create(settings, plan.identity, 0, backend=plan.backend, endpoint=endpoint, tied=False)
        fields = {
            "schema": 1, "identity": plan.identity, "endpoint": endpoint, "pid": process.pid, "backend": plan.backend,
            "start_ticks": machine.start_ticks(process.pid), "tied": False, "last_used": time.time(),
        }  # fmt: skip
        os.pwrite(fd, json.dumps(fields).encode().ljust(1000), 0)
        inode = os.fstat(fd).st_ino
        try:
            yield process
        finally:
            os.close(fd)
            if registry.present(path, inode):
                path.unlink()
            process.kill()
