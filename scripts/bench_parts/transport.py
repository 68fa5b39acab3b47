"""Tiles to a worker and back, with the ring and without, against a memory copy and Appose; in turns, in one run."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from measure import PYTHON, environment, load
from report import Row, Table
from transport_curve import RawCurve
from transport_trips import Memcpy, ThroughAppose, ThroughChannel, ThroughPool, Tiles

if TYPE_CHECKING:
    from transport_trips import Way

    from upx.config import Settings
    from upx.workers.plan import WorkerPlan

HELD = Path(__file__).with_name("held")
TRIPS, TURN = 1000, 20
# side of a tile, tiles, most times a memory copy, least times faster than Appose
CASES = ((256, 1, 2.5, 10.0), (512, 8, 1.3, None))
CPU_GOAL = 0.1
# CURVE over the loopback has to reach 0.8 of what a bare loop reaches. Its trips are long, and a worker ends a session
# that says nothing for five seconds, as a channel without a pool does meanwhile: so it is measured apart.
CURVE_GOAL, CURVE_TRIPS = 1 / 0.8, 200


@dataclass
class Seen:
    """What one way took."""

    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure() -> Table:
    plan, settings = _plan()
    rows: list[Row] = []
    with ExitStack() as stack:
        ways = _ways(stack, plan, settings)
        for side, batch, most, faster in CASES:
            name = f"{batch} x {side}²"
            seen = _in_turns(Tiles(side, batch), ways, name, TRIPS)
            rows += _rows(name, seen, Tiles(side, batch).gigabytes, most, faster)
    with ExitStack() as stack:
        ways = _curve_ways(stack, plan, settings)
        for side, batch, _, _ in CASES:
            name = f"{batch} x {side}², CURVE"
            rows += _curve_rows(name, _in_turns(Tiles(side, batch), ways, name, CURVE_TRIPS), side, batch)
    notes = (
        "channel: Conversation, Channel and the worker's loop, which copies results that it holds; pool: the same",
        "through WorkerPool.submit and a future; socket: inline parts. CPU seconds: of host and worker together.",
        f"CURVE: over the loopback, {CURVE_TRIPS} trips; bare: pyzmq alone, one part a tile.",
        load(),
    )
    title = f"Transport: u8 tiles, x4, there and back; medians of {TRIPS} trips, {TURN} at a time in turns"
    return Table("transport", title, tuple(rows), notes)


def _plan() -> tuple[WorkerPlan, Settings]:
    from upx.config import Settings
    from upx.workers.plan import WorkerPlan
    from upx.workers.stage import stage

    settings = Settings.from_env(environment())
    staged = stage(HELD, "held", settings)
    plan = WorkerPlan(
        backend="held", module="held.worker", python=PYTHON, stage=staged.folder, build=staged.digest, model="held",
        environ=dict(settings.child_env),
    )  # fmt: skip
    return plan, settings


def _ways(stack: ExitStack, plan: WorkerPlan, settings: Settings) -> dict[str, Way]:
    from upx.workers.pool import WorkerPool

    apart = replace(plan, share=False)
    ring, socket = (ThroughPool(stack.enter_context(WorkerPool(each, settings))) for each in (plan, apart))
    return {
        "memcpy": Memcpy(),
        "ring, channel": stack.enter_context(closing(ThroughChannel(plan, ring))),
        "ring, pool": ring,
        "socket, channel": stack.enter_context(closing(ThroughChannel(apart, socket))),
        "Appose": stack.enter_context(closing(ThroughAppose())),
    }


def _curve_ways(stack: ExitStack, plan: WorkerPlan, settings: Settings) -> dict[str, Way]:
    from upx.workers.pool import WorkerPool

    return {
        "pool": ThroughPool(stack.enter_context(WorkerPool(plan, settings, transport="tcp"))),
        "bare, copied": stack.enter_context(closing(RawCurve(copy=True))),
        "bare, not copied": stack.enter_context(closing(RawCurve(copy=False))),
    }


def _in_turns(tiles: Tiles, ways: dict[str, Way], name: str, trips: int) -> dict[str, Seen]:
    seen: dict[str, Seen] = defaultdict(Seen)
    for way in ways.values():
        way.trips(tiles, 5)  # memory is there, code is warm
    for turn in range(trips // TURN):
        # Every other turn the other way round.
        for what in list(ways) if turn % 2 == 0 else reversed(ways):
            seconds, cpu = ways[what].trips(tiles, TURN)
            seen[what].seconds += seconds
            seen[what].cpu += cpu
    for what, found in seen.items():
        print(f"{name}: {what} {1000 * found.median:.3f} ms", file=sys.stderr, flush=True)
    return seen


def _rows(name: str, seen: dict[str, Seen], gigabytes: float, most: float, faster: float | None) -> list[Row]:
    floor, ring, appose = seen["memcpy"].median, seen["ring, channel"].median, seen["Appose"].median
    cpu = _per_gigabyte(seen["ring, channel"], gigabytes)
    return [
        *_times(name, seen, gigabytes),
        Row(f"{name}: ring against memcpy, channel", ring / floor, "x", most),
        Row(f"{name}: ring against memcpy, pool", seen["ring, pool"].median / floor, "x"),
        # A goal is the most that a figure may be.
        Row(
            f"{name}: ring's time in Appose's, channel", ring / appose, "x", faster and 1 / faster,
            note=f"{appose / ring:.1f} times faster",
        ),
        Row(f"{name}: CPU, channel", cpu, "s/GB", CPU_GOAL),
    ]  # fmt: skip


def _curve_rows(name: str, seen: dict[str, Seen], side: int, batch: int) -> list[Row]:
    ours, bare = seen["pool"].median, min(seen["bare, copied"].median, seen["bare, not copied"].median)
    note = f"{bare / ours:.2f} of its rate"
    against = Row(f"{name}: pool against the better bare loop", ours / bare, "x", CURVE_GOAL, note=note)
    return [*_times(name, seen, Tiles(side, batch).gigabytes), against]


def _times(name: str, seen: dict[str, Seen], gigabytes: float) -> list[Row]:
    return [
        Row(f"{name}: {what}", 1000 * found.median, "ms", note=f"{_per_gigabyte(found, gigabytes):.3f} CPU-s/GB")
        for what, found in seen.items()
    ]


def _per_gigabyte(found: Seen, gigabytes: float) -> float:
    return found.cpu / len(found.seconds) / gigabytes
