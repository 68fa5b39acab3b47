"""A box for the soaks of networks: ``upx worker serve`` on the loopback, and a client of it in this process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from upx.host import Host
from upx.remote.boxes import Book, Box
from upx.remote.keys import KeyRing
from upx.routes import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from upx.config import Settings
    from upx.workers.pool import WorkerPool

TILE = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
ENLARGED = TILE.repeat(4, axis=0).repeat(4, axis=1)
DEADLINE_S = 20.0


class RunningBox:
    """``home`` is the box's machine; ``allow`` lets a client in."""

    def __init__(self, home: Settings) -> None:
        self.keys = KeyRing(home)
        self._root = home.data_dir.parent
        self.log = self._root / "served.log"

    def allow(self, name: str, client: Settings) -> None:
        self.keys.allow(name, KeyRing(client).public("client"))

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "upx", "worker", "serve", "nearest", "--listen", "tcp://127.0.0.1:0"]
        with self.log.open("wb") as said:
            self._process = subprocess.Popen(
                [*command, "--name", "attic"], env={**os.environ, "UPX_HOME": str(self._root)},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
        self._await("serves nearest")
        self.port = int(re.findall(r"tcp://127.0.0.1:([0-9]+)", self.said)[-1])
        self.worker = int(re.findall(r": process ([0-9]+)", self.said)[-1])
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE_S)

    @property
    def said(self) -> str:
        """What the box and its worker have logged."""
        logs = sorted((self._root / "state" / "logs").glob("*.log"))
        return self.log.read_text() + "".join(path.read_text(errors="replace") for path in logs)

    def _await(self, words: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while words not in self.log.read_text():
            if time.monotonic() > until or self._process.poll() is not None:
                raise TimeoutError(self.log.read_text())
            time.sleep(0.02)

    @property
    def resident(self) -> int:
        """The worker's resident set, bytes."""
        pages = Path(f"/proc/{self.worker}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        """How many the worker has open."""
        return sum(1 for _ in Path(f"/proc/{self.worker}/fd").iterdir())


@contextmanager
def client(box: RunningBox, home: Settings) -> Generator[WorkerPool]:
    """A pool of this process whose one worker is the box's."""
    Book(home).add(Box("attic", f"tcp://127.0.0.1:{box.port}", box.keys.public("server"), "nearest"))
    with Host(home) as host:
        pool = host.open(Request(backend="nearest", on=("attic",))).start()
        pool.ready(DEADLINE_S)
        yield pool


def trips(pool: WorkerPool, seconds: float, going: Callable[[], bool] = lambda: True) -> list[float]:
    """Round trips of one tile, one after the other, while ``going``; each answer is compared. Seconds."""
    took: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until and going():
        began = time.perf_counter()
        (future,) = pool.submit([TILE], out_dtype="uint8", job=1)
        result = future.result(DEADLINE_S)
        if not np.array_equal(result.array, ENLARGED):
            raise AssertionError("a wrong tile")
        result.release()
        took.append(time.perf_counter() - began)
        time.sleep(0.002)
    return took
