"""Memory of the host: peak resident set above start-up while pictures of 1, 9 and 25 megapixels become PNG files."""

from __future__ import annotations

import json
from pathlib import Path

from measure import OUT, PYTHON, environment, load, picture, run
from report import Row, Table

SIDES = (1000, 3000, 5000)
PER_PIXEL_B = 4.6
HOST = Path(__file__).with_name("memory_host.py")


def measure() -> Table:
    rows, ks = [], []
    for side in SIDES:
        source, target = picture(side, side), OUT / "memory.png"
        _, text = run([PYTHON, HOST, source, target], env=environment())
        target.unlink()
        seen = json.loads(text.splitlines()[-1])
        above, pixels = seen["peak"] - seen["start"], side * side
        band = side * seen["tile"] * seen["scale"] ** 2
        k = (above - PER_PIXEL_B * pixels) / band
        ks.append(k)
        name = f"{pixels / 1e6:.0f} megapixels, tile {seen['tile']}, x{seen['scale']}"
        rows += [
            Row(f"{name}: above start-up", above / 1e6, "MB", note=f"start-up {seen['start'] / 1e6:.0f} MB"),
            Row(f"{name}: per input pixel", above / pixels, "B"),
            Row(f"{name}: k", k, "B"),
        ]
    notes = (f"peak <= {PER_PIXEL_B} B x pixels + k x width x tile x scale^2 holds with k = {max(ks):.2f}", load())
    return Table("memory", "Host memory with PNG output, nearest x4", tuple(rows), notes)
