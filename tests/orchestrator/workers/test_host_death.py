"""The host's own end: killed, forked, or forgetting to close. Each host here is a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from worker_kit import NEAREST, enlarged, gone_within, lives, noise, until

from upx.workers import events, registry

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
import os, sys, time
from pathlib import Path
import numpy as np
from upx.config import Settings
from upx.workers.plan import WorkerPlan
from upx.workers.pool import WorkerPool
from upx.workers.stage import stage
settings = Settings.from_env(os.environ)
staged = stage(Path(sys.argv[1]), "upx_backends.nearest", settings)
plan = WorkerPlan(backend="nearest", module="upx_backends.nearest.worker", python=Path(sys.executable),
    stage=staged.folder, build=staged.digest, model="nearest-x4", environ=dict(settings.child_env),
    keep_alive=float(sys.argv[2]))
pool = WorkerPool(plan, settings)
pool.ready(30)
TILE = np.zeros((8, 8, 3), np.uint8)
pid = list(pool._supervisor._links.values())[0].process.pid
"""


@contextmanager
def host(settings, keep_alive: float, then: str) -> Iterator[subprocess.Popen]:
    environ = {**os.environ, "UPX_HOME": str(settings.state_dir.parent)}
    command = [sys.executable, "-c", SCRIPT + then, str(NEAREST), str(keep_alive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("then", ["", "pool.submit([TILE], out_dtype='uint8', job=1, params={'delay': 60.0})\n"])
def test_a_tied_worker_is_gone_within_a_second_of_its_host_being_killed(settings, then) -> None:
    with host(settings, 0, then + "time.sleep(0.3)\nprint(pid, flush=True)\ntime.sleep(60)") as process:
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        assert gone_within(pid, 1.0)
    # A process with threads looks dead a moment before its locks are released.
    assert any(not registry.list_workers(settings) for _ in until(1.0))


def test_a_detached_worker_serves_the_next_command_after_its_host_was_killed(settings, open_pool, plan) -> None:
    with host(settings, 60, "print(pid, flush=True)\ntime.sleep(60)") as process:
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert lives(pid)
    eyes = open_pool(plan, keep_alive=60.0)
    assert np.array_equal(eyes.up(noise(1))[0], enlarged(noise(1)))
    assert [event.pid for event in eyes.of(events.WorkerAdopted)] == [pid]


def test_a_pool_that_was_forgotten_is_closed_at_the_end(settings) -> None:
    with host(settings, 0, "print(pid, flush=True)") as process:
        pid = int(process.stdout.readline())
        assert process.wait(20) == 0
    assert gone_within(pid, 0.5)
    assert list(settings.workers_dir.rglob("*.json")) == []


def test_a_detached_worker_keeps_no_pipe_of_its_host_open(settings) -> None:
    with host(settings, 60, "pool.close()\nprint(pid, flush=True)") as process:
        output, _ = process.communicate(timeout=20)  # `$(upx up)` would hang here
    assert lives(int(output))


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
child = os.fork()
if child == 0:
    try:
        pool.submit([TILE], out_dtype="uint8", job=1)
        print("worked", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    pool.close()
    os._exit(0)
os.waitpid(child, 0)
result = pool.submit([TILE], out_dtype="uint8", job=1)[0].result(20)
print(result.array.shape, flush=True)
pool.close()
"""


def test_a_forked_copy_of_the_host_refuses_to_work_and_disturbs_nobody(settings) -> None:
    with host(settings, 0, FORK) as process:
        output, _ = process.communicate(timeout=30)
    said, shape = output.splitlines()
    assert said.startswith("WorkerError a forked copy")
    assert shape == "(32, 32, 3)"


def test_a_forked_copy_does_not_keep_tied_workers_alive(settings) -> None:
    then = "import warnings; warnings.simplefilter('ignore')\nif os.fork() == 0: time.sleep(20); os._exit(0)\n"
    with host(settings, 0, then + "print(pid, flush=True)\ntime.sleep(60)") as process:
        pid = int(process.stdout.readline())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
        assert gone_within(pid, 1.0)
        for child in map(int, children):
            if child != pid and lives(child):
                os.kill(child, signal.SIGKILL)
