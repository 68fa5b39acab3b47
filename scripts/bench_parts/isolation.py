"""What isolation costs: file to file, against a bare loop over the same network with as many busy threads."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from bare import Bare
from measure import OUT, environment, load, picture
from report import Row, Table

from upx.jobs import JobOptions

if TYPE_CHECKING:
    from pathlib import Path

    from upx.result import Record
    from upx.session import Session

SHAPES = ((1000, 1000, "retina.jpg"), (1414, 707, "coffee.png"), (500, 2000, "rocket.jpg"))
PAIRS, THREADS = 5, 2
GOAL = 0.90
TRIPS = 15


def measure() -> Table:
    from upx.config import Settings
    from upx.host import Host
    from upx.routes import Request

    rows: list[Row] = []
    shares: list[str] = []
    with Bare(threads=THREADS) as bare, Host(Settings.from_env(environment())) as host:
        # `workers=0` is the default of the command; one worker of two threads is what it has to beat.
        default, single = host.open(Request(workers=0)), host.open(Request(workers=1))
        single.route = replace(single.route, backend=replace(single.route.backend, threads=THREADS))
        for width, height, name in SHAPES:
            source = picture(width, height, of=name)
            seconds, records = _shape(source, bare, {"upx": default, "one worker": single})
            rows += _rows(f"{width} x {height}", seconds)
            shares.append(_shares(f"{width} x {height}", records, _transport(default, records[0])))
    ratios = [row.value for row in rows if row.goal is not None]
    rows.append(Row("worst ratio", max(ratios), "", GOAL))
    notes = (
        "share of the job's wall time; inference is the sum of all workers, transport runs beside it:",
        *shares,
        load(),
    )
    title = f"Isolation: PNG to PNG, span-x4, {THREADS} busy threads, medians of {PAIRS} alternating pairs"
    return Table("isolation", title, tuple(rows), notes)


def _shape(source: Path, bare: Bare, ups: dict[str, Session]) -> tuple[dict[str, list[float]], list[Record]]:
    seconds: dict[str, list[float]] = defaultdict(list)
    records: list[Record] = []
    first = {name: _up(up, source) for name, up in ups.items()}  # workers are warm from here on
    plan = _plan(first["upx"])
    target = OUT / "bare.png"
    bare.up(source, target, plan)
    for index in range(PAIRS):
        # Every other pair the other way round.
        for name in ("bare", *ups) if index % 2 == 0 else (*ups, "bare"):
            if name == "bare":
                seconds[name].append(bare.up(source, target, plan)["seconds"])
            else:
                record = _up(ups[name], source)
                seconds[name].append(record.seconds)
                records += [record] if name == "upx" else []
            print(f"{source.stem}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    _same(target, OUT / "isolation.png")
    return seconds, records


def _up(session: Session, source: Path) -> Record:
    return session.run(source, OUT / "isolation.png", JobOptions()).record


def _plan(record: Record):
    """The very tiles of the job, from what its record says."""
    from upx.catalog import Catalog
    from upx.config import Settings
    from upx.tiling import plan_tiles

    spec = Catalog(Settings.from_env(environment())).backend("span")
    width, height = record.in_size
    plan = plan_tiles(height, width, tile=max(record.tile), overlap=spec.tiling.overlap, size=spec.size)
    if len(plan.boxes) != record.tiles:
        message = f"the bare loop would cut {len(plan.boxes)} tiles, upx cut {record.tiles}"
        raise RuntimeError(message)
    return plan


def _same(left: Path, right: Path) -> None:
    """Both loops computed the same picture: at most one level apart."""
    import numpy as np
    from PIL import Image

    with Image.open(left) as a, Image.open(right) as b:
        apart = np.abs(np.asarray(a).astype(np.int16) - np.asarray(b)).max()
    if apart > 1:
        message = f"the two pictures are {apart} levels apart: not the same work"
        raise RuntimeError(message)


def _rows(shape: str, seconds: dict[str, list[float]]) -> list[Row]:
    """Medians, and the median of each pair's ratio: the two of a pair met the same weather."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = {
        name: statistics.median(a / b for a, b in zip(values, seconds["bare"], strict=True))
        for name, values in seconds.items()
    }
    return [
        Row(f"{shape}: bare loop", median["bare"], "s"),
        Row(f"{shape}: upx up, its default", median["upx"], "s"),
        Row(f"{shape}: upx up, one worker of two threads", median["one worker"], "s"),
        Row(f"{shape}: ratio, one worker of two threads", ratio["one worker"], ""),
        Row(f"{shape}: ratio", ratio["upx"], "", GOAL),
    ]


def _transport(session: Session, record: Record) -> float:
    """Seconds that one tile of the job spends outside of the network, there and back, with nothing else in flight."""
    import numpy as np

    width, height = record.tile
    tile = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pool, seen = session.start(), []
    for _ in range(TRIPS):
        begin = time.perf_counter()
        (future,) = pool.submit([tile], out_dtype="uint8", job=0)
        answer = future.result(timeout=60)
        seen.append(time.perf_counter() - begin - answer.seconds)
    return statistics.median(seen)


def _shares(shape: str, records: list[Record], transport: float) -> str:
    wall = statistics.median(record.seconds for record in records)
    stages = {
        stage: statistics.median(record.stages.get(stage, 0.0) for record in records)
        for stage in ("decode", "tile", "inference", "stitch", "encode")
    }
    stages["transport"] = transport * records[0].tiles
    parts = [f"{stage} {100 * seconds / wall:.1f} %" for stage, seconds in stages.items()]
    return f"  {shape}: " + " · ".join(parts) + f" ({1000 * transport:.2f} ms a tile, {records[0].tiles} tiles)"
