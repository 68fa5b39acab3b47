"""Everything of the churn that must not rise: who is weighed, what can be compared, and the most that each may rise."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from _churn_figures import Bound, Series, Verdict, age, children, count, memory, weigh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _churn_world import LongLived, World

# What a young process still learns is no leak.
GROWN_UP_S = 20.0
# This share of the run is its own.
WARM = 0.25
# Of the host, live bytes and blocks are counted exactly: 1 KB a job shows within minutes. Of other processes the system
# alone tells, by pages: kB a minute, and so much in all, for what allocators keep of their largest moment.
BOUNDS = {
    "host live bytes": Bound("B/job", 192.0, 512 << 10),
    "host Python blocks": Bound("a job", 0.02, 300.0),
    "host memory": memory(20.0, 4096.0),
    "local worker memory": memory(20.0, 6144.0),
    "attic memory": memory(10.0, 1024.0),
    "cellar memory": memory(10.0, 1024.0),
    "attic worker memory": memory(20.0, 6144.0),
    "cellar worker memory": memory(20.0, 6144.0),
}
# Those whose processes live through a short run: their slopes have to be told.
GROWN_OLD = ("host", "cellar")
MOST_MORE = {"descriptors": 2.0, "threads": 2.0, "files": 4.0, "sessions": 2.0}


class Scales:
    """The figures of a run, one series each."""

    def __init__(self, world: World, host: LongLived) -> None:
        self._world, self._host = world, host
        self._began = time.monotonic()
        self._jobs = 0
        self._series: dict[str, Series] = {}

    def weigh(self, jobs: int) -> None:
        """Take every figure, at rest, after so many jobs."""
        x, held, self._jobs = time.monotonic() - self._began, self._host.ask(60.0, do="weigh"), jobs
        pid = self._host.process.pid
        # Without a box that it has just lost, the host has fewer sockets, and objects.
        state = f"{pid} without {self._world.missing(self._host)}"
        self._add("host live bytes", state, jobs, held["live"])
        self._add("host Python blocks", state, jobs, held["blocks"])
        self._of_process("host", pid, x, state)
        for child in children(pid):
            self._of_worker("local", child, x)
        for box in self._world.boxes:
            self._of_process(box.name, box.parent, x, str(box.parent))
            self._of_worker(box.name, box.child(), x)
            self._add(f"{box.name} sessions", "", x, box.sessions)
        for name, files in self._world.files().items():
            self._add(f"{name} files", "", x, files)

    def _of_worker(self, where: str, pid: int, x: float) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):  # one that leaves is nobody's leak
            if age(pid) >= GROWN_UP_S:
                self._of_process(f"{where} worker", pid, x, str(pid))

    def _of_process(self, role: str, pid: int, x: float, state: str) -> None:
        found = weigh(pid)
        self._add(f"{role} memory", state, x, found.private)
        self._add(f"{role} descriptors", state, x, found.descriptors)
        self._add(f"{role} threads", state, x, found.threads)

    def _add(self, name: str, state: str, x: float, value: float) -> None:
        if name not in self._series:
            self._series[name] = Series(name, BOUNDS.get(name) or count(MOST_MORE[name.rpartition(" ")[2]]))
        self._series[name].add(state, x, value)

    def verdicts(self, path: Path) -> Iterator[Verdict]:
        """What became of each figure; all points are kept at ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: series.points for name, series in self._series.items()}, indent=1))
        seconds = time.monotonic() - self._began
        for series in self._series.values():
            yield series.verdict(WARM * (self._jobs if series.by_jobs else seconds))
