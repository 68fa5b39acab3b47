"""HiT-SR's networks on one thread, 128 x 128 to 512 x 512, in the cost of a matrix product; and their memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from measure import ROOT, environment, load, run
from report import Row, Table

INSIDE = Path(__file__).with_name("hitsr_inside.py")
# GFLOP of a 1024^3 product that take as long; the networks' arithmetic alone is 30 to 32.
GOALS = {"sir": 75.0, "sng": 95.0, "srf": 80.0}
MEMORY_GOAL_MB = 700.0


def measure() -> Table:
    from upx.catalog import Catalog
    from upx.config import Settings
    from upx.venvs.builder import EnvBuilder

    settings = Settings.from_env(_environment())
    spec = Catalog(settings).backend("hitsr")
    python = EnvBuilder(settings).ensure(spec.env, flavour="cpu").python
    rows: list[Row] = []
    for family, goal in GOALS.items():
        command = [python, "-I", INSIDE, family, ROOT / "backends", ROOT / "protocol"]
        found = json.loads(run(command, env=environment(**spec.environ))[1])
        note = f"{found['seconds']:.3f} s at {found['rate']:.0f} GFLOP/s"
        rows.append(Row(f"HiT-{family.upper()} x4, 128 x 128", found["cost"], "GFLOP", goal, note=note))
        rows.append(Row(f"HiT-{family.upper()} x4, peak memory", found["peak"], "MB", MEMORY_GOAL_MB))
    return Table("hitsr", "HiT-SR on one thread, against a matrix product of 1024", tuple(rows), (load(),))


def _environment() -> dict[str, str]:
    """The bench's own home, with the folder of wheels that the user named."""
    wheels = {name: os.environ[name] for name in ("UPX_WHEELHOUSE",) if name in os.environ}
    return environment(**wheels)
