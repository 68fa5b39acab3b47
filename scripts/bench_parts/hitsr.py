"""HiT-SR's networks on one thread, 128 x 128 to 512 x 512, in the cost of a matrix product; and their memory."""

from __future__ import annotations

from pathlib import Path

from measure import load
from report import Row, Table
from torch_envs import inside

INSIDE = Path(__file__).with_name("hitsr_inside.py")
# GFLOP of a 1024^3 product that take as long; the networks' arithmetic alone is 30 to 32.
GOALS = {"sir": 75.0, "sng": 95.0, "srf": 80.0}
MEMORY_GOAL_MB = 700.0


def measure() -> Table:
    rows: list[Row] = []
    for family, goal in GOALS.items():
        found = inside("hitsr", INSIDE, family)
        note = f"{found['seconds']:.3f} s at {found['rate']:.0f} GFLOP/s"
        rows.append(Row(f"HiT-{family.upper()} x4, 128 x 128", found["cost"], "GFLOP", goal, note=note))
        rows.append(Row(f"HiT-{family.upper()} x4, peak memory", found["peak"], "MB", MEMORY_GOAL_MB))
    return Table("hitsr", "HiT-SR on one thread, against a matrix product of 1024", tuple(rows), (load(),))
