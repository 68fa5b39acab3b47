"""What the tests of workers share: a home of their own, plans for `nearest`, eyes on a pool, and a stand-in worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import upx_backends.nearest
from upx.config import Settings
from upx.workers import control, machine, registry
from upx.workers.plan import Timeouts, WorkerPlan
from upx.workers.pool import WorkerPool
from upx.workers.stage import stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEAREST = Path(upx_backends.nearest.__file__).parent
# Short enough for a suite, long enough for a busy machine with two cores.
QUICK = Timeouts(busy=1.2, busy_first=1.2, backoff_most=0.4, ping=0.3, misses=5, start=30.0, load=30.0, hello=1.0)


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home of its own with a short path; no worker outlives the test."""
    home = tmp_path_factory.mktemp("w")
    made = Settings.from_env({**os.environ, "UPX_HOME": str(home)})
    yield made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "TERM_S", 0.2)  # some of them hang by order
        control.stop(made, force=True)


@pytest.fixture
def plan(settings: Settings) -> WorkerPlan:
    """One tied worker of `nearest`, x4."""
    staged = stage(NEAREST, "upx_backends.nearest", settings)
    return WorkerPlan(
        backend="nearest", module="upx_backends.nearest.worker", python=Path(sys.executable), stage=staged.folder,
        build=staged.digest, model="nearest-x4", environ=dict(settings.child_env),
    )  # fmt: skip


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
        """Wait until a worker has reported that it computes a batch; that worker's pid."""
        for _ in until(10):
            for number, worker in list(self.pool._supervisor._state.workers.items()):
                link = self.pool._supervisor._links.get(number)
                if worker.started and link is not None and link.process is not None:
                    return link.process.pid
        raise AssertionError("no tile came in flight")


@pytest.fixture
def open_pool(settings: Settings) -> Iterator[Callable[..., Eyes]]:
    pools: list[WorkerPool] = []

    def make(plan: WorkerPlan, *, timeouts: Timeouts = QUICK, transport=None, **changes) -> Eyes:
        events: list = []
        plan = replace(plan, **changes)
        pools.append(WorkerPool(plan, settings, on_event=events.append, timeouts=timeouts, transport=transport))
        return Eyes(pools[-1], events)

    yield make
    for pool in pools:
        pool.close()


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
    except FileNotFoundError:
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
