"""Jobs of the far soak, drawn by seed: the picture, how it is asked for, its fault, and when that strikes."""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _far_boxes import How

# Twenty jobs have all faults; every further twenty have them again, in another order.
DECK = (
    "none", "kill-worker", "kill-worker", "kill-worker", "stop-worker", "stop-worker", "stop-worker", "kill-host",
    "kill-host", "kill-host", "stop-host", "stop-host", "cut-healed", "cut-healed", "cut", "cut-alone", "loss",
    "compatible", "incompatible", "incompatible-alone",
)  # fmt: skip
# A box goes for good: there is another, or none.
ELSEWHERE, ALONE = ("cut", "incompatible"), ("cut-alone", "incompatible-alone")
# (short, long) seconds that a fault lasts: a long one outlives the heartbeats, or the 15 s after which a box forgets.
HOLDS = {"stop-worker": ((1, 4), (12, 15)), "stop-host": ((1, 4), (17, 19)), "cut-healed": ((1, 5), (11, 14)),
         "loss": ((5, 9), (10, 14))}  # fmt: skip
LONG_SHARE = 0.3
# A host that gives up sooner than after 90 s, so that a run is not spent waiting; every fifth twenty does wait.
HASTY = {"away": 8.0, "reach": 8.0, "far_backoff_most": 2.0}
PATIENT_EVERY = 5
# Of those that are computed in one piece.
LARGEST = (288, 288)


@dataclass(frozen=True, kw_only=True)
class Job:
    """``boxes``: numbers of those it is given; ``struck``: those the fault is for, ``hold`` seconds long, 0 for good.

    ``library``: an array through the library, else a file through the command. ``tile``: None for the whole picture.
    ``delay``: seconds a tile. ``share`` of its work is done when it is hit. ``how`` a box is brought another release.
    """

    number: int
    fault: str
    boxes: tuple[int, ...]
    struck: tuple[int, ...]
    hold: float
    library: bool
    dtype: str
    size: tuple[int, int]
    scale: int
    tile: int | None
    delay: float
    share: float
    seed: int
    how: How
    timeouts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        door, (height, width) = "library" if self.library else "command", self.size
        words = [f"{self.number:3d} {self.fault:18s} {door}", f"{height}x{width} {self.dtype} x{self.scale}"]
        words += [f"tile {self.tile or 'off'}", f"boxes {self.boxes}", f"struck {self.struck}"]
        words += [f"for {self.hold:.1f} s"] if self.hold else []
        return ", ".join([*words, *([self.how] if "compatible" in self.fault else [])])

    @property
    def tiles(self) -> int:
        return math.prod(-(-side // self.tile) for side in self.size) if self.tile else 1

    @property
    def work(self) -> float:
        """Seconds of computing, all tiles one after the other."""
        return self.tiles * self.delay

    @property
    def picture(self) -> np.ndarray:
        noise, shape = np.random.default_rng(self.seed), (*self.size, 3)
        if self.dtype == "float32":
            return noise.random(shape, np.float32)
        return noise.integers(0, 256, shape, np.uint8)

    @property
    def enlarged(self) -> np.ndarray:
        """What has to come out of it."""
        return self.picture.repeat(self.scale, axis=0).repeat(self.scale, axis=1)

    @property
    def nbytes(self) -> int:
        """Of its output, before it is encoded."""
        return math.prod(self.size) * 3 * self.scale**2 * np.dtype(self.dtype).itemsize

    @property
    def names(self) -> tuple[str, str]:
        """Of its input and its output."""
        suffix = ".npy" if self.library else ".png"
        return f"in{suffix}", f"out{suffix}"

    def write(self, folder: Path, order: Path, boxes: Sequence[str]) -> list[str]:
        """Its input; the words that run it, all boxes known by their names."""
        source, target = (folder / name for name in self.names)
        on = [boxes[number] for number in self.boxes]
        if not self.library:
            Image.fromarray(self.picture).save(source)
            words = [
                "-m",
                "upx",
                "up",
                source,
                "-o",
                target,
                "-b",
                "nearest",
                "-s",
                self.scale,
                "-t",
                self.tile or "off",
            ]
            words += ["--set", f"delay={self.delay}", "--on", ",".join(on), "--json", "-v"]
            return [sys.executable, *map(str, words)]
        np.save(source, self.picture)
        told = {"input": str(source), "output": str(target), "on": on, "scale": self.scale, "delay": self.delay,
                "tile": self.tile, "timeouts": dict(self.timeouts)}  # fmt: skip
        order.write_text(json.dumps(told))
        return [sys.executable, str(Path(__file__).with_name("_far_host.py")), str(order)]

    def wrong(self, folder: Path, *, done: bool) -> str:
        """What is wrong with what lies in its folder; ``done``: the output has to be there."""
        expected, found = set(self.names if done else self.names[:1]), {path.name for path in folder.iterdir()}
        if found != expected:
            return f"there are files {sorted(found)} instead of {sorted(expected)}"
        if not done:
            return ""
        target = folder / self.names[1]
        output = np.load(target) if self.library else np.asarray(Image.open(target))
        right = output.dtype == self.enlarged.dtype and np.array_equal(output, self.enlarged)
        return "" if right else f"a wrong picture: {output.dtype} {output.shape}"


def draw(number: int, seed: int, boxes: int) -> Job:
    """A job of a run. The same number and seed draw the same job."""
    turn = number // len(DECK)
    deck = list(DECK)
    random.Random(f"{seed}:{turn}").shuffle(deck)
    rng, fault = random.Random(f"{seed}:job:{number}"), deck[number % len(DECK)]
    job = _asked(number, fault, rng, boxes)
    if fault == "cut-alone":
        patient = turn % PATIENT_EVERY == PATIENT_EVERY - 1
        job = replace(job, library=not patient, timeouts={} if patient else HASTY)
    # A file of 16 bits a channel is read as 8, and there is none of floats.
    return replace(job, dtype=rng.choice(("uint8", "float32"))) if job.library else job


def _asked(number: int, fault: str, rng: random.Random, boxes: int) -> Job:
    whole = fault not in (*ALONE, *ELSEWHERE) and rng.random() < 0.1
    # One tile is for one box, and of two nobody knows which.
    count = 1 if whole or fault in ALONE else boxes if fault in ELSEWHERE else rng.randint(1, boxes)
    chosen = tuple(rng.sample(range(boxes), count))
    hold = rng.uniform(*HOLDS[fault][rng.random() < LONG_SHARE]) if fault in HOLDS else 0.0
    # At 30 % loss TCP moves few packets a second; and a whole picture's result is held several times.
    tile, most = 32 if fault == "loss" else rng.choice((48, 64, 96)), 4 if fault == "loss" else 3 if whole else 6
    height, width = (tile * rng.randint(3, most) - rng.randrange(tile // 2) for _ in range(2))
    # A box that goes for good has to leave something undone, whatever it had been given.
    work = rng.uniform(5, 6) if fault in ALONE else count * rng.uniform(2.5, 4)
    tiles = 1 if whole else math.prod(-(-side // tile) for side in (height, width))
    return Job(
        number=number, fault=fault, boxes=chosen, hold=hold,
        # Of cables one or all, of boxes one.
        struck=chosen if fault in {"cut-healed", "loss"} and rng.random() < 0.5 else chosen[:1],
        library=rng.random() < 0.5, dtype="uint8", size=(height, width), scale=rng.choice((2, 3, 4)),
        tile=None if whole else tile, delay=round(work / tiles, 4), share=rng.uniform(0.05, 0.5),
        seed=rng.randrange(2**32), how=rng.choice(("reload", "restart")),
    )  # fmt: skip


def warm_up(seed: int, box: int) -> Job:
    """A job that nobody disturbs, with the largest result that is drawn: memory is at its height from the start."""
    return replace(
        draw(0, seed, 1), number=-1, fault="none", boxes=(box,), struck=(box,), hold=0.0, library=True,
        dtype="float32", size=LARGEST, scale=4, tile=None, delay=0.0, timeouts={},
    )  # fmt: skip
