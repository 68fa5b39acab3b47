"""TSD-SR and VARSR at the released size, with random numbers, on all cores: one tile of 128 x 128 to 512 x 512.

Weights of that size are written below .cache/bench first, 5 GB for each, and removed again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from measure import OUT, load
from report import Row, Table
from torch_envs import inside

INSIDE = Path(__file__).with_name("full_inside.py")
CASES = {
    "tsdsr": {"fp32": {"precision": "fp32"}, "bf16": {"precision": "bf16"}},
    "varsr": {"without guidance": {"cfg": 0.0}, "cfg 6": {"cfg": 6.0}},
}


def measure() -> Table:
    rows: list[Row] = []
    for name, cases in CASES.items():
        folder = OUT / "full" / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            inside(name, INSIDE, "make", name, str(folder), flavour="default")
            for case, params in cases.items():
                found = inside(name, INSIDE, "run", name, str(folder), json.dumps(params), flavour="default")
                note = f"{found['cpu']:.0f} s of CPU; loaded in {found['load']:.1f} s"
                rows.append(Row(f"{name}, {case}: a tile of 128", found["wall"], "s", note=note))
                rows.append(Row(f"{name}, {case}: memory of its own", found["own"] / 1000, "GB"))
                rows.append(Row(f"{name}, {case}: with mapped files", found["all"] / 1000, "GB", note=load()))
        finally:
            shutil.rmtree(folder)
    return Table("full", "TSD-SR and VARSR at full size with random numbers, on the CPU", tuple(rows))
