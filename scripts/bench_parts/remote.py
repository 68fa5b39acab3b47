"""Jobs on three boxes behind links of 1 GbE at 1 ms, and of 100 Mbit/s at 40 ms with 1 % loss, each way.

Against what line, a bare CURVE loop over the same link, and model allow for, and one box against three. The model is a
timed wait, so that two cores are enough for four machines. For Linux, as root: boxes are network namespaces.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from measure import OUT, environment, load
from remote_boxes import Machine, machines, served
from remote_curve import rate as curve_rate
from report import Row, Table

from lab import Lab  # isort: skip  remote_boxes says where it lies
from link import FAR, GIGABIT, Shape  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SCALE, TILE = 2, 256
TIMES, LEARNED = 3, 12
# A goal is the most that a figure may be.
RATE_GOAL, SCALING_GOAL = 1 / 0.8, 1 / 0.95
REAL_SCALE, REAL_TILES = 4, 24


@dataclass(frozen=True)
class Case:
    """A link, the seconds that a model waits with each tile, and a job's tiles, without waiting and with."""

    name: str
    shape: Shape
    wait: float
    quick: int
    slow: int


CASES = (
    Case("1 GbE, 1 ms", GIGABIT, wait=0.1, quick=288, slow=144),
    Case("100 Mbit, 40 ms, 1 %", FAR, wait=0.25, quick=144, slow=144),
)


def measure() -> Table:
    from upx.config import Settings
    from upx.host import Host

    with Host(Settings.from_env(environment())) as host:
        host.setup("nearest")
        host.setup("span")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="remote-", dir=OUT) as folder, Lab(boxes=3) as lab:
        client, boxes = machines(lab, Path(folder))
        with served(lab, "nearest", client, boxes) as names:
            for case in CASES:
                _shape(lab, case)
                rows += _link_rows(lab, client, names, case)
                rows += _scaling_rows(lab, client, names, case)
        _shape(lab, CASES[0])
        with served(lab, "span", client, boxes) as names:
            rows += _real_rows(lab, client, names)
        about = lab.about
    notes = (
        "Every result was compared with that of the same job on this machine. Delay and loss are each way;",
        f"tiles of {TILE}², u8, x{SCALE}; a rate of line is that of results alone. {about}.",
        load(),
    )
    return Table("remote", "Jobs on boxes behind shaped links, tiles a second", tuple(rows), notes)


def _shape(lab: Lab, case: Case) -> None:
    for box in lab.boxes:
        box.link.become(case.shape)


def _link_rows(lab: Lab, client: Machine, names: Sequence[str], case: Case) -> list[Row]:
    """One box and a model that waits for nothing: as fast as line, CURVE and the model's own work allow; in turns."""
    rates, heres, bare = [], [], []
    with _session(lab, client, "nearest", SCALE) as here, _session(lab, client, "nearest", SCALE, names[:1]) as there:
        # Memory is there, TCP has learned what it may send.
        here(case.quick), there(case.quick)
        for _ in range(TIMES):
            found, wanted = here(case.quick)
            heres.append(found)
            rates.append(_checked(there(case.quick), wanted))
            bare.append(curve_rate(lab, lab.boxes[0], _picture(1), SCALE, case.quick // 2))
            print(f"{case.name}: {rates[-1]:.1f}, bare CURVE {bare[-1]:.1f} tiles/s", file=sys.stderr, flush=True)
    line = case.shape.rate / 8 / _result_bytes()
    got, curve, model = (statistics.median(each) for each in (rates, bare, heres))
    return [
        Row(f"{case.name}: line", line, "tiles/s"),
        Row(f"{case.name}: bare CURVE", curve, "tiles/s", note=_each(bare)),
        Row(f"{case.name}: a job on this machine", model, "tiles/s", note=_each(heres)),
        Row(f"{case.name}: a job on a box", got, "tiles/s", note=_each(rates)),
        _against(
            f"{case.name}: least of line, CURVE, machine against the box", min(line, curve, model), got, RATE_GOAL
        ),
    ]


def _scaling_rows(lab: Lab, client: Machine, names: Sequence[str], case: Case) -> list[Row]:
    """A model that waits: one box and three, in turns."""
    rates: dict[int, list[float]] = {1: [], 3: []}
    with _session(lab, client, "nearest", SCALE) as here:
        _, wanted = here(case.slow)
    for _ in range(TIMES - 1):
        for count, found in rates.items():
            with _session(lab, client, "nearest", SCALE, names[:count], delay=case.wait) as there:
                # A host learns how many tiles a box has to have at a time.
                there(LEARNED * count)
                found.append(_checked(there(case.slow), wanted))
            print(f"{case.name}: {count} boxes {found[-1]:.2f} tiles/s", file=sys.stderr, flush=True)
    one, three, model = statistics.mean(rates[1]), statistics.mean(rates[3]), 1 / case.wait
    name = f"{case.name}, {1000 * case.wait:.0f} ms a tile"
    return [
        Row(f"{name}: one box", one, "tiles/s", note=_each(rates[1])),
        _against(f"{name}: the model against one box", model, one, RATE_GOAL),
        Row(f"{name}: three boxes", three, "tiles/s", note=_each(rates[3])),
        _against(f"{name}: three times one against three", 3 * one, three, SCALING_GOAL),
    ]


def _real_rows(lab: Lab, client: Machine, names: Sequence[str]) -> list[Row]:
    """Real workers of one thread each, which share this machine's cores with the host and the links."""
    rates: dict[int, list[float]] = {1: [], 2: [], 3: []}
    with _session(lab, client, "span", REAL_SCALE) as here:
        _, wanted = here(REAL_TILES)
    for _ in range(TIMES - 1):
        for count, found in rates.items():
            with _session(lab, client, "span", REAL_SCALE, names[:count]) as there:
                there(2 * count)
                found.append(_checked(there(REAL_TILES), wanted))
    means = {count: statistics.mean(found) for count, found in rates.items()}
    return [
        Row(
            f"{CASES[0].name}, span on one thread: boxes {count}", got, "tiles/s",
            note=f"{got / means[1]:.2f} times one, on {os.cpu_count()} cores",
        )
        for count, got in means.items()
    ]  # fmt: skip


@contextlib.contextmanager
def _session(
    lab: Lab, client: Machine, backend: str, scale: int, names: Sequence[str] = (), *, delay: float = 0.0
) -> Iterator[Callable[[int], tuple[float, np.ndarray]]]:
    """What runs a job of so many tiles: tiles a second, and the result. On this machine without names."""
    from upx.config import Settings
    from upx.host import Host
    from upx.jobs import JobOptions
    from upx.routes import Request

    params = {"delay": delay} if delay else {}
    request = Request(backend=backend, scale=scale, workers=1, on=tuple(names), params=params)
    with lab.enter_host(), Host(Settings.from_env(client.env)) as host:
        session = host.open(request)

        def job(tiles: int) -> tuple[float, np.ndarray]:
            picture = _picture(tiles)
            begin = time.perf_counter()
            result = session.run(picture, None, JobOptions(tile=TILE))
            return result.record.tiles / (time.perf_counter() - begin), result.output

        yield job


def _checked(job: tuple[float, np.ndarray], wanted: np.ndarray) -> float:
    """The rate of a job that came out right."""
    found, output = job
    if not np.array_equal(output, wanted):
        message = "boxes change the picture"
        raise RuntimeError(message)
    return found


def _picture(tiles: int) -> np.ndarray:
    """Noise of so many tiles, twelve in a row where there are as many."""
    across = min(tiles, 12)
    size = (TILE * (tiles // across), TILE * across, 3)
    return np.random.default_rng(tiles).integers(0, 256, size, np.uint8)


def _result_bytes() -> int:
    return 3 * (TILE * SCALE) ** 2


def _against(name: str, least: float, got: float, goal: float) -> Row:
    return Row(name, least / got, "x", goal, note=f"{got / least:.3f} of it")


def _each(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.1f}" for rate in rates)
