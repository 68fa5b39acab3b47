"""What host and transport cost a megapixel: whole jobs with nearest, tiles in the ring and tiles through the socket."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from measure import environment, load, photo
from report import Row, Table

from upx.jobs import JobOptions

if TYPE_CHECKING:
    from upx.session import Session

SIDE, TILE, JOBS = 1500, 512, 7
WAYS = {"socket": False, "ring": True}


@dataclass
class Cost:
    """Seconds of one job: by the clock, computing, CPU of the host, CPU of its worker, CPU of the I/O thread."""

    wall: float
    inference: float
    host: float
    worker: float
    transport: float


def measure() -> Table:
    from upx.config import Settings
    from upx.host import Host
    from upx.routes import Request

    picture, costs = _picture(), defaultdict(list)
    with ExitStack() as stack:
        host = stack.enter_context(Host(Settings.from_env(environment())))
        sessions = {
            name: _session(host.open(Request(backend="nearest", workers=1)), share) for name, share in WAYS.items()
        }
        results = {name: session.run(picture, None, JobOptions(tile=TILE)).output for name, session in sessions.items()}
        if not np.array_equal(results["ring"], results["socket"]):
            message = "the ring changes the picture"
            raise RuntimeError(message)
        del results
        for job in range(JOBS):
            # Every other time the other way round.
            for name in list(sessions) if job % 2 == 0 else reversed(sessions):
                costs[name].append(_job(sessions[name], picture))
                print(f"{name}: {costs[name][-1].wall:.3f} s", file=sys.stderr, flush=True)
    rows = [row for name in WAYS for row in _rows(name, costs[name])]
    title = (
        f"Jobs with nearest, x4, arrays of {SIDE} x {SIDE}, tiles of {TILE}: medians of {JOBS}, a megapixel of input"
    )
    return Table("nearest", title, tuple(rows), (load(),))


def _picture() -> np.ndarray:
    from PIL import Image

    with Image.open(photo("retina.jpg")) as source:
        return np.asarray(source.convert("RGB").resize((SIDE, SIDE)))


def _session(session: Session, share: bool) -> Session:  # noqa: FBT001  the one thing that differs
    plan = replace(session.prepare(), share=share)
    session.prepare = lambda: plan
    return session


def _job(session: Session, picture: np.ndarray) -> Cost:
    (link,) = session.start()._supervisor._links.values()  # noqa: SLF001  the pool shows nobody its workers
    pid = link.process.pid
    host, worker, begin = time.process_time(), _cpu(pid), time.perf_counter()
    stages = session.run(picture, None, JobOptions(tile=TILE)).record.stages
    wall = time.perf_counter() - begin
    return Cost(wall, stages["inference"], time.process_time() - host, _cpu(pid) - worker, stages["transport"])


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rows(name: str, costs: list[Cost]) -> list[Row]:
    megapixels = SIDE * SIDE / 1e6

    def each(what) -> float:
        return 1000 * statistics.median(what(cost) for cost in costs) / megapixels

    return [
        Row(f"{name}: the job", each(lambda cost: cost.wall), "ms"),
        Row(f"{name}: without computing", each(lambda cost: cost.wall - cost.inference), "ms"),
        Row(f"{name}: CPU of the I/O thread", each(lambda cost: cost.transport), "ms"),
        Row(f"{name}: CPU of host and worker, without computing", each(_outside), "ms"),
    ]


def _outside(cost: Cost) -> float:
    return cost.host + cost.worker - cost.inference
