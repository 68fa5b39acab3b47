"""A host in a process of its own: starts a worker on a small picture, then reports its peak for one large one.

Arguments: input, output. Prints JSON: start and peak in bytes of resident set, tile in pixels, scale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import upx


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def main(source: str, target: str) -> None:
    small = Path(target).with_name("memory-small.png")
    with upx.Upscaler("nearest", scale=4, workers=2) as up:
        # Modules, worker and encoder are there before the start is taken.
        up(np.zeros((64, 64, 3), np.uint8))
        up(_small_picture(small), out=small.with_suffix(".out.png"))
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
        start = _status("VmRSS")
        result = up.submit(source, target).result()
        peak = _status("VmHWM")
    small.unlink()
    small.with_suffix(".out.png").unlink()
    tile = max(result.record.tile)
    print(json.dumps({"start": start, "peak": peak, "tile": tile, "scale": result.record.scale}))


def _small_picture(path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (64, 64), "teal").save(path)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
