"""VARSR and TSD-SR in small sizes on one thread, in the cost of a matrix product, and what of it is arithmetic."""

from __future__ import annotations

from pathlib import Path

from measure import load
from report import Row, Table
from torch_envs import inside

INSIDE = Path(__file__).with_name("generative_inside.py")
NAMES = {"varsr": "VARSR, depth 2, 512 x 512", "tsdsr": "TSD-SR, tiny, 37 x 29"}


def measure() -> Table:
    rows: list[Row] = []
    for backend, name in NAMES.items():
        # Their torch has no build for the CPU alone.
        for step, found in inside(backend, INSIDE, backend, flavour="default").items():
            note = f"{found['seconds']:.3f} s at {found['rate']:.0f} GFLOP/s"
            if found["arithmetic"]:
                note += f"; arithmetic {found['arithmetic']:.3g}, {found['arithmetic'] / found['cost']:.0%}"
            rows.append(Row(f"{name}, {step}", found["cost"], "GFLOP", note=note))
    return Table(
        "generative", "VARSR and TSD-SR on one thread, against a matrix product of 1024", tuple(rows), (load(),)
    )
