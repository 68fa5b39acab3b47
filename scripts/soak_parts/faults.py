"""Jobs under faults: workers killed, stopped, crashing, hanging, fed poison. Every output must be right.

    python scripts/soak_parts/faults.py --count 10 --seed 1

Each case runs ``count`` times on real workers of the nearest backend. A kill or stop that hit no tile in flight does
not count: it is tried again. Prints a line a case and closes with ``N passed, N failed``; exit 1 when one failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _cases import main

from upx.errors import PoisonTileError
from upx.host import Host
from upx.jobs import JobOptions
from upx.routes import Request
from upx.workers.events import TileRequeued, WorkerAdopted, WorkerStarting
from upx.workers.plan import Timeouts

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from upx.config import Settings

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


CASES = {"kill": kill, "stop": stop, "crash": crash, "hang": hang, "poison": poison}

if __name__ == "__main__":
    sys.exit(main(CASES, __doc__.splitlines()[0]))
