"""The long-lived host of the churn: a program that embeds upx and is told by lines of JSON when to work and be still.

    {"do": "work", "seed": N}   jobs of every kind from several threads, until
    {"do": "rest"}              what runs ends; answered with a Report: how many jobs, which errors, what was wrong
    {"do": "weigh"}             answered with what this process holds, garbage collected

``--leak BYTES`` keeps so much of every job, and a descriptor of every round, to see that the churn notices.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import random
import shutil
import signal
import sys
import threading
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _churn_pictures import Case, draw

import upx
from upx.errors import CancelledError, UpxError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.futures import JobFuture

# A job waits for a box for a minute and a half, and for a cut link beside.
JOB_S = 180.0
THREADS = 3
LARGEST, LARGEST_FAR, LARGEST_PASSING = 1_000_000, 20_000, 150_000
BOXES = ("attic", "cellar")


@dataclass
class Report:
    """What a round of work came to. ``errors``: (which Upscaler, class, message)."""

    jobs: int = 0
    cancelled: int = 0
    pixels: int = 0
    errors: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Mallinfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``: bytes in use are ``uordblks`` in its arenas, and ``hblkhd`` beside them."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def fill_numpys_cache() -> None:
    """Have numpy keep all that it ever keeps: up to 7 freed blocks of each size below 1,024 bytes, for ever.

    To the C library they are in use. Pictures of random sizes fill that cache little by little, and look like a leak.
    """
    for size in range(1, 1024):
        [np.empty(size, np.uint8) for _ in range(8)]


class Work:
    """The Upscalers that live as long as this process, and the jobs that several threads give them."""

    def __init__(self, folder: Path, leak: int) -> None:
        self.folder, self._leak = folder, leak
        self.near = upx.Upscaler("nearest")
        self.both = upx.Upscaler("nearest", tile=96, on=("local", *BOXES), delay=0.005)
        self._lock, self._enough = threading.Lock(), threading.Event()
        self._kept: list[bytes] = []
        self.report = Report()
        self._libc = ctypes.CDLL(None)
        self._libc.mallinfo2.restype = Mallinfo

    def begin(self, seed: int) -> list[threading.Thread]:
        self._enough.clear()
        self.report = Report()
        made = [
            threading.Thread(target=self._guarded, args=(turn, random.Random(f"{seed}:{number}")))
            for number, turn in enumerate([*[self._turn] * THREADS, self._passing])
        ]
        for thread in made:
            thread.start()
        return made

    def end(self, threads: Sequence[threading.Thread]) -> Report:
        """The round's report, once all that it began has ended."""
        self._enough.set()
        for thread in threads:
            thread.join(4 * JOB_S)
            if thread.is_alive():
                self._wrong("a thread never ended")
        if self._leak:
            os.open(os.devnull, os.O_RDONLY)
        return self.report

    def weigh(self) -> dict[str, int]:
        """Live blocks of Python's, live bytes of the C library's, objects that the collector knows."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        gc.collect()
        self._libc.malloc_trim(0)
        held = self._libc.mallinfo2()
        return {
            "blocks": sys.getallocatedblocks(),
            "live": held.uordblks + held.hblkhd,
            "objects": len(gc.get_objects()),
        }

    def close(self) -> None:
        self.near.close()
        self.both.close()

    # Threads

    def _guarded(self, turn: Any, rng: random.Random) -> None:
        try:
            while not self._enough.is_set():
                turn(rng)
        except Exception as error:  # noqa: BLE001  # the round goes on, and has failed
            self._wrong(f"{type(error).__name__}: {error}")

    def _turn(self, rng: random.Random) -> None:
        name, upscaler = rng.choice([("near", self.near), ("both", self.both)])
        how = rng.choice([self._call, self._submit, self._await, self._batch, self._cancel])
        how(name, upscaler, rng, 4, LARGEST)

    def _passing(self, rng: random.Random) -> None:
        """An Upscaler that comes, does a few jobs, and is closed, perhaps while one still runs."""
        on = rng.choice([(), BOXES, BOXES, ("local", "attic"), ("any",)])
        # A box has one model at a time: whoever wants another waits until nobody uses that one, and gives up.
        scale = 4 if on else rng.choice([2, 3, 4])
        name = "here" if not on else "far" if on == BOXES else "mixed"
        tile = rng.choice(["auto", "off", rng.randrange(16, 200)])
        most = LARGEST_FAR if name == "far" else LARGEST_PASSING
        left = None
        with upx.Upscaler("nearest", scale=scale, tile=tile, on=on, delay=rng.choice([0.0, 0.01])) as it:
            for _ in range(rng.randrange(1, 4)):
                how = rng.choice([self._call, self._await, self._batch, self._cancel])
                how(name, it, rng, scale, most)
            if rng.random() < 0.4:
                left = self._begun(it, self._draw(rng, scale, most))
        if left is not None and not left.done():
            self._wrong(f"{name}: closed, and a job of it neither done nor cancelled")
        self._enough.wait(rng.uniform(0.5, 2.0))

    # Ways to have a picture enlarged

    def _call(self, name: str, it: upx.Upscaler, rng: random.Random, scale: int, most: int) -> None:
        case = self._draw(rng, scale, most)
        with self._expecting(name):
            self._judge(name, case, it(case.source, case.out))

    def _submit(self, name: str, it: upx.Upscaler, rng: random.Random, scale: int, most: int) -> None:
        case = self._draw(rng, scale, most)
        with self._expecting(name):
            self._judge(name, case, self._begun(it, case).result(JOB_S).output)

    def _await(self, name: str, it: upx.Upscaler, rng: random.Random, scale: int, most: int) -> None:
        cases = [self._draw(rng, scale, most // 4 or 1) for _ in range(2)]

        async def all_of_them() -> list[Any]:
            found = asyncio.gather(*(it.run(case.source, case.out) for case in cases), return_exceptions=True)
            return await asyncio.wait_for(found, JOB_S)

        for case, result in zip(cases, asyncio.run(all_of_them()), strict=True):
            with self._expecting(name):
                if isinstance(result, BaseException):
                    raise result
                self._judge(name, case, result.output)

    def _batch(self, name: str, it: upx.Upscaler, rng: random.Random, scale: int, most: int) -> None:
        cases = [self._draw(rng, scale, most // 4 or 1) for _ in range(rng.randrange(1, 5))]
        leave_after = rng.choice([1, 9, 9])
        with contextlib.closing(it.batch([case.source for case in cases])) as results:
            for number, (case, result) in enumerate(zip(cases, results, strict=True), 1):
                with self._expecting(name):
                    if result.error is not None:
                        raise result.error
                    self._judge(name, case, result.output)
                if number == leave_after:
                    break

    def _cancel(self, name: str, it: upx.Upscaler, rng: random.Random, scale: int, most: int) -> None:
        case = self._draw(rng, scale, most)
        future = self._begun(it, case)
        # From a job that waits to one that has long ended.
        self._enough.wait(rng.uniform(0.0, 0.6) ** 2)
        if future.cancel():
            with self._lock:
                self.report.cancelled += 1
            return
        with self._expecting(name):
            self._judge(name, case, future.result(0).output)

    # What came of it

    def _draw(self, rng: random.Random, scale: int, most: int) -> Case:
        return draw(rng, scale, most=most, folder=self.folder)

    def _begun(self, it: upx.Upscaler, case: Case) -> JobFuture:
        return it.submit(case.source, case.out)

    def _judge(self, name: str, case: Case, output: object) -> None:
        wrong = case.check(output)
        with self._lock:
            self.report.jobs += 1
            self.report.pixels += case.pixels
            if self._leak:
                self._kept.append(os.urandom(self._leak))
        if wrong:
            self._wrong(f"{name}: {case.name}: {wrong}")

    @contextlib.contextmanager
    def _expecting(self, name: str) -> Any:
        """Errors are told and judged by whoever knows what happened meanwhile; nobody has cancelled anything here."""
        try:
            yield
        except (CancelledError, FutureCancelledError):
            self._wrong(f"{name}: cancelled, and by nobody")
        except UpxError as error:
            with self._lock:
                self.report.errors.append((name, type(error).__name__, str(error)))

    def _wrong(self, what: str) -> None:
        with self._lock:
            self.report.wrong.append(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--leak", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir()
    # Asked by whoever waits in vain: where each thread stands.
    faulthandler.register(signal.SIGUSR1)
    fill_numpys_cache()
    work, threads = Work(arguments.folder, arguments.leak), []
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "work":
            threads = work.begin(order["seed"])
            continue
        answer = asdict(work.end(threads)) if order["do"] == "rest" else work.weigh()
        print(json.dumps(answer), flush=True)
    work.close()


if __name__ == "__main__":
    main()
