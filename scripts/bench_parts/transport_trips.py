"""Round trips of tiles whose results are held by the worker: by copying memory, the channel, the pool and Appose."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from measure import OUT, ROOT, UV, environment, run

from upx.workers.channel import Hub
from upx.workers.conversation import Conversation
from upx.workers.happenings import Ponged, Serving, TileDone
from upx.workers.plan import Timeouts
from upx.workers.state import Batch
from upx.workers.tiles import Request
from upx_protocol.arrays import view
from upx_protocol.messages import Bye

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.workers.plan import WorkerPlan
    from upx.workers.pool import WorkerPool

SCALE = 4
APPOSE = Path(__file__).with_name("transport_appose.py")


class Tiles:
    """A batch of tiles, and what a memory copy of them and of their results needs."""

    def __init__(self, side: int, batch: int) -> None:
        rng = np.random.default_rng(0)
        self.side, self.batch = side, batch
        self.tiles = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(batch)]
        results = [rng.integers(0, 256, (side * SCALE, side * SCALE, 3), np.uint8) for _ in range(batch)]
        self.pairs = [(array.copy(), array) for array in (*self.tiles, *results)]
        self.gigabytes = sum(array.nbytes for _, array in self.pairs) / 1e9

    def stamp(self) -> None:
        """No trip may be answered with the results of the one before."""
        for number, tile in enumerate(self.tiles):
            tile[0, 0, 0] = (int(tile[0, 0, 0]) + number + 1) % 251

    def check(self, index: int, result: np.ndarray) -> None:
        tile = self.tiles[index]
        assert result[0, 0, 0] == tile[0, 0, 0]
        assert result[-1, -1, -1] == tile[-1, -1, -1]


class Way(Protocol):
    """One way to make trips: their seconds, and the CPU seconds that all of them took."""

    def trips(self, tiles: Tiles, count: int) -> tuple[list[float], float]: ...


class Memcpy:
    """Tiles and results copied once, into memory that is there already."""

    def trips(self, tiles: Tiles, count: int) -> tuple[list[float], float]:
        return timed(lambda: self._trip(tiles), tiles, count, [])

    def _trip(self, tiles: Tiles) -> None:
        for target, source in tiles.pairs:
            np.copyto(target, source)


class ThroughPool:
    """``WorkerPool.submit`` to ``future.result()``: channel, worker, and all that decides and survives."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        pool.ready(60)
        (link,) = pool._supervisor._links.values()  # noqa: SLF001  the pool shows nobody its workers
        self.pid, self.endpoint = link.process.pid, link._found.info.endpoint  # noqa: SLF001

    def trips(self, tiles: Tiles, count: int) -> tuple[list[float], float]:
        return timed(lambda: self._trip(tiles), tiles, count, [self.pid])

    def _trip(self, tiles: Tiles) -> None:
        futures = self._pool.submit(tiles.tiles, out_dtype="uint8", job=0)
        for index, future in enumerate(futures):
            result = future.result(60)
            tiles.check(index, result.array)
            result.release()


class ThroughChannel:
    """The host's I/O thread alone: ``Conversation`` and ``Channel``, to the same worker's loop in a second session."""

    def __init__(self, plan: WorkerPlan, pool: ThroughPool) -> None:
        self._pid, self._numbers = pool.pid, 0
        self._hub = Hub()
        self._channel = self._hub.connect(pool.endpoint)
        self._talk = Conversation(
            0, "bench", plan, self._channel, timeouts=Timeouts(), report=lambda _event: None, leaving=lambda: False,
            share=plan.share,
        )  # fmt: skip
        self._talk.greet(time.monotonic())
        while not any(isinstance(happening, Serving) for happening in self._heard()):
            continue

    def close(self) -> None:
        self._talk.say(Bye())
        self._talk.shared.close()
        self._channel.close(linger=0.2)
        self._hub.close()

    def trips(self, tiles: Tiles, count: int) -> tuple[list[float], float]:
        # Where the others took more than five seconds the worker has forgotten this session, and begins another.
        self._talk.ping()
        while not any(isinstance(happening, (Ponged, Serving)) for happening in self._heard()):
            continue
        return timed(lambda: self._trip(tiles), tiles, count, [self._pid])

    def _heard(self) -> Iterator[object]:
        self._hub.wait(5.0)
        now = time.monotonic()
        for received in self._channel.receive():
            yield from self._talk.hear(received, now)

    def _trip(self, tiles: Tiles) -> None:
        self._numbers += 1
        batch = Batch(self._numbers, 0, tuple(range(tiles.batch)), 0, 0)
        self._talk.send_batch(batch, Request(tiles.tiles, "uint8", (), {}), time.monotonic())
        left = tiles.batch
        while left:
            for it in self._heard():
                if isinstance(it, TileDone):
                    tiles.check(it.index, view(it.payload.buffer, it.payload.part))
                    left -= 1


class ThroughAppose:
    """Appose in an environment of its own, which is made where it is not there yet."""

    def __init__(self) -> None:
        env = OUT / "appose"
        python = env / "bin" / "python"
        if not python.exists():
            run([UV, "venv", "--quiet", "--no-config", env], env=environment())
            packages = ("appose==0.12.0", "numpy")
            run([UV, "pip", "install", "--quiet", "--no-config", "--python", python, *packages], env=environment())
        self._process = subprocess.Popen(
            [python, APPOSE], cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        self._process.communicate("", timeout=30)

    def trips(self, tiles: Tiles, count: int) -> tuple[list[float], float]:
        self._process.stdin.write(f"{tiles.side} {tiles.batch} {count}\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        return found["seconds"], found["cpu"]


def timed(trip, tiles: Tiles, count: int, pids: list[int]) -> tuple[list[float], float]:
    seconds: list[float] = []
    before = _cpu(pids)
    for _ in range(count):
        tiles.stamp()
        begin = time.perf_counter()
        trip()
        seconds.append(time.perf_counter() - begin)
    return seconds, _cpu(pids) - before


def _cpu(pids: list[int]) -> float:
    """CPU seconds of this process and of ``pids``, all threads that live."""
    total = time.process_time()
    for pid in pids:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        total += sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    return total
