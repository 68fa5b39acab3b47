"""PNG: our row-streaming writer against Pillow, on sixteen megapixels of an enlarged photograph."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from measure import OUT, load, median_of, picture
from report import Row, Table

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SIDE, TIMES, BAND = 4000, 5, 256


def measure() -> Table:
    import numpy as np
    from PIL import Image

    with Image.open(picture(SIDE, SIDE, of="astronaut.png")) as source:
        pixels = np.array(source)
    target = OUT / "encode.png"
    rows: list[Row] = []
    writers = {
        "upx, in bands of 256 rows": lambda: _ours(pixels, target),
        "Pillow, level 1": lambda: _pillow(pixels, target, level=1),
        "Pillow, its default": lambda: _pillow(pixels, target, level=6),
    }
    for name, write in writers.items():
        write()
        seconds = median_of(TIMES, write)
        rows.append(Row(name, seconds, "s", note=f"{target.stat().st_size / 1e6:.1f} MB"))
        with Image.open(target) as written:
            if not np.array_equal(np.asarray(written), pixels):
                message = f"{name}: the file does not hold the pixels"
                raise RuntimeError(message)
    target.unlink()
    rows.append(Row("upx against Pillow's level 1", rows[0].value / rows[1].value, ""))
    return Table("encode", f"PNG of {SIDE * SIDE / 1e6:.0f} megapixels, medians of {TIMES}", tuple(rows), (load(),))


def _ours(pixels: np.ndarray, target: Path) -> float:
    from upx.media.encoders import open_encoder

    begin = time.perf_counter()
    encoder = open_encoder(target, "png", width=SIDE, height=SIDE, mode="RGB")
    for top in range(0, SIDE, BAND):
        encoder.write(pixels[top : top + BAND])
    encoder.close()
    return time.perf_counter() - begin


def _pillow(pixels: np.ndarray, target: Path, *, level: int) -> float:
    from PIL import Image

    begin = time.perf_counter()
    Image.fromarray(pixels).save(target, compress_level=level)
    return time.perf_counter() - begin
