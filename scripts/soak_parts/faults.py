"""Jobs under faults: workers killed, stopped, crashing, hanging, fed poison; hosts killed. Every output must be right.

    python scripts/soak_parts/faults.py --count 10 --seed 1

Each case runs ``count`` times on real workers of the nearest backend. A kill or stop that hit no tile in flight does
not count: it is tried again. Prints a line a case and closes with ``N passed, N failed``; exit 1 when one failed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from upx.config import Settings
from upx.errors import PoisonTileError
from upx.host import Host
from upx.jobs import JobOptions
from upx.routes import Request
from upx.workers.events import TileRequeued, WorkerAdopted, WorkerStarting
from upx.workers.plan import Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 2.0
REPLACED_S = 10.0
DELAY_S = 0.06
TILE = 64
TRIES = 20
TIMEOUTS = Timeouts(busy=DEADLINE_S, busy_first=DEADLINE_S, busy_factor=3.0)
POISON = (1, 2, 3)


@dataclass
class Watch:
    """What a host reported, with times."""

    events: list[tuple[float, object]] = field(default_factory=list)

    def __call__(self, event: object) -> None:
        self.events.append((time.monotonic(), event))

    def pids(self) -> list[int]:
        return [event.pid for _, event in self.events if isinstance(event, (WorkerStarting, WorkerAdopted))]

    def requeued_after(self, moment: float) -> float | None:
        """Seconds from ``moment`` to the first requeue after it."""
        times = [at for at, event in self.events if isinstance(event, TileRequeued) and at >= moment]
        return times[0] - moment if times else None


def picture(rng: random.Random) -> np.ndarray:
    noise = np.random.default_rng(rng.randrange(2**32))
    return noise.integers(8, 256, (rng.randrange(200, 330), rng.randrange(200, 330), 3), np.uint8)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def expected(array: np.ndarray) -> str:
    return digest(array.repeat(2, 0).repeat(2, 1))


@contextlib.contextmanager
def session(settings: Settings, **params: object):
    watch = Watch()
    with Host(settings, watch, timeouts=TIMEOUTS) as host:
        yield host.open(Request(backend="nearest", scale=2, workers=2, params={"delay": DELAY_S, **params})), watch


def disturbed(settings: Settings, rng: random.Random, strike: Callable[[int], None]) -> str:
    """Jobs with ``strike(pid)`` at a random moment, until one hit a tile in flight; what was wrong, or nothing."""
    for _ in range(TRIES):
        waited, right = disturbed_once(settings, rng, strike)
        if not right:
            return "the output differs from the undisturbed one"
        if waited is not None:
            return f"the worker was replaced after {waited:.1f} s" if waited > DEADLINE_S + REPLACED_S else ""
    return f"no tile was in flight in {TRIES} tries"


def disturbed_once(settings: Settings, rng: random.Random, strike: Callable[[int], None]) -> tuple[float | None, bool]:
    """(seconds until tiles were requeued, None when there were none to requeue; whether the output is right)."""
    array = picture(rng)
    begun, struck = threading.Event(), []
    at_tile, pause = rng.randrange(1, 9), rng.random() * DELAY_S
    with session(settings) as (each, watch):

        def hit() -> None:
            begun.wait(60)
            time.sleep(pause)
            struck.append(time.monotonic())
            strike(rng.choice(watch.pids()))

        thread = threading.Thread(target=hit)
        thread.start()
        result = each.run(
            array, None, JobOptions(tile=TILE), on_progress=lambda p: p.tiles_done >= at_tile and begun.set()
        )
        begun.set()
        thread.join()
        waited = watch.requeued_after(struck[0])
    return waited, digest(result.output) == expected(array)


def kill(settings: Settings, rng: random.Random) -> str:
    return disturbed(settings, rng, lambda pid: os.kill(pid, signal.SIGKILL))


def stop(settings: Settings, rng: random.Random) -> str:
    return disturbed(settings, rng, lambda pid: os.kill(pid, signal.SIGSTOP))


def told(settings: Settings, rng: random.Random, what: str) -> str:
    """One job in which one worker obeys an order that it takes in the middle of a tile."""
    array = picture(rng)
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "order"
        at_tile, begun = rng.randrange(1, 9), []

        def progress(p) -> None:
            if p.tiles_done >= at_tile and not begun:
                begun.append(time.monotonic())
                order.touch()

        with session(settings, **{f"{what}_once_file": str(order)}) as (each, watch):
            result = each.run(array, None, JobOptions(tile=TILE), on_progress=progress)
            waited = watch.requeued_after(begun[0])
        if order.exists():
            return "no worker took the order"
    if digest(result.output) != expected(array):
        return "the output differs from the undisturbed one"
    if waited is None:
        return "no tile was requeued"
    return f"the worker was replaced after {waited:.1f} s" if waited > DEADLINE_S + REPLACED_S else ""


def crash(settings: Settings, rng: random.Random) -> str:
    return told(settings, rng, "crash")


def hang(settings: Settings, rng: random.Random) -> str:
    return told(settings, rng, "hang")


def poison(settings: Settings, rng: random.Random) -> str:
    """A poisoned job fails alone and by name; one beside it comes out right."""
    good, bad = picture(rng), picture(rng)
    bad[rng.randrange(bad.shape[0]), rng.randrange(bad.shape[1])] = POISON
    outcome: list[object] = []
    with session(settings, crash_on=bytes(POISON).hex()) as (each, _watch):

        def doomed() -> None:
            try:
                outcome.append(each.run(bad, None, JobOptions(tile=TILE)))
            except Exception as error:  # noqa: BLE001  # whatever it is, it is looked at below
                outcome.append(error)

        thread = threading.Thread(target=doomed)
        thread.start()
        result = each.run(good, None, JobOptions(tile=TILE))
        thread.join()
    if not isinstance(outcome[0], PoisonTileError):
        return f"the poisoned job ended with {outcome[0]!r}"
    return "" if digest(result.output) == expected(good) else "the healthy job's output is wrong"


HOST = """
import sys, numpy as np, json
from upx.config import Settings
from upx.host import Host
from upx.jobs import JobOptions
from upx.routes import Request
from upx.workers.events import WorkerAdopted, WorkerStarting
def tell(event):
    if isinstance(event, (WorkerAdopted, WorkerStarting)):
        print(json.dumps([type(event).__name__, event.pid]), flush=True)
keep = json.loads(sys.argv[1])
with Host(Settings.from_env(), tell) as host:
    session = host.open(Request(backend="nearest", scale=2, workers=1, keep_alive=keep, params={"delay": 0.05}))
    array = np.full((200, 200, 3), 9, np.uint8)
    count = lambda p: print(json.dumps(["tiles", p.tiles_done]), flush=True)
    result = session.run(array, None, JobOptions(tile=64), on_progress=count)
    assert (result.output == 9).all()
    print(json.dumps(["done", 0]), flush=True)
"""


def host_process(keep: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOST, json.dumps(keep)], stdout=subprocess.PIPE, text=True)


def killed_host(keep: float) -> int:
    """Start a host, kill it with SIGKILL in the middle of a job; the pid of its worker."""
    host = host_process(keep)
    pid = 0
    for line in host.stdout or ():
        what, number = json.loads(line)
        pid = pid if what == "tiles" else number
        if what == "tiles" and number >= 2:
            break
    host.kill()
    host.wait()
    if host.stdout:
        host.stdout.close()
    return pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def tied_host(settings: Settings, rng: random.Random) -> str:
    del settings, rng
    pid = killed_host(0)
    deadline = time.monotonic() + 1.0
    while alive(pid):
        if time.monotonic() > deadline:
            return "the tied worker outlived its host by more than a second"
        time.sleep(0.01)
    return ""


def detached_host(settings: Settings, rng: random.Random) -> str:
    del settings, rng
    pid = killed_host(3)
    with host_process(3) as host:
        lines = [json.loads(line) for line in host.stdout or ()]
    if ["WorkerAdopted", pid] not in lines or lines[-1] != ["done", 0]:
        return f"the detached worker did not serve the next command: {lines[:2]} {lines[-1:]}"
    deadline = time.monotonic() + 15
    while alive(pid):
        if time.monotonic() > deadline:
            return "the detached worker never left"
        time.sleep(0.05)
    return ""


CASES = {
    "kill": kill,
    "stop": stop,
    "crash": crash,
    "hang": hang,
    "poison": poison,
    "tied-host": tied_host,
    "detached-host": detached_host,
}


def open_descriptors() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


def leftovers(before: set[int]) -> str:
    """Children and descriptors that a case left behind."""
    deadline = time.monotonic() + 5
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        descriptors = open_descriptors() - before
        # The listing itself holds one.
        if not children and len(descriptors) <= 1:
            return ""
        if time.monotonic() > deadline:
            return f"left behind: processes {children}, descriptors {sorted(descriptors)}"
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--case", choices=CASES, action="append")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="upx-soak-") as home:
        os.environ["UPX_HOME"] = home
        settings = Settings.from_env()
        with Host(settings) as host:
            host.setup("nearest")
        for name in arguments.case or CASES:
            for number in range(arguments.count):
                rng = random.Random(f"{seed}:{name}:{number}")
                before = open_descriptors()
                started = time.monotonic()
                try:
                    problem = CASES[name](settings, rng) or leftovers(before)
                except Exception as error:  # noqa: BLE001  # a case that raises has failed, the others go on
                    problem = f"{type(error).__name__}: {error}"
                passed, failed = passed + (not problem), failed + bool(problem)
                print(f"{name} {number}: {problem or 'ok'} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
