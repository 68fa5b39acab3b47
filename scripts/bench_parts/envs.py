"""Environments: how long a build takes with an empty and a warm uv cache, and what it takes on the disk."""

from __future__ import annotations

import shutil
import statistics
from typing import TYPE_CHECKING

from measure import OUT, UPX, environment, load, run
from report import Row, Table

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ("nearest", "span")
TIMES = 5


def measure() -> Table:
    folder = OUT / "envs"
    rows: list[Row] = []
    for backend in BACKENDS:
        cache = folder / "uv-cache"
        shutil.rmtree(folder, ignore_errors=True)
        cold = _build(backend, folder / "home", cache)
        disk = _disk(folder / "home" / "data" / "venvs")
        warm = statistics.median(_build(backend, folder / f"home-{i}", cache) for i in range(TIMES))
        rows += [
            Row(f"{backend}: empty cache, packages fetched", cold, "s"),
            Row(f"{backend}: warm cache, median of {TIMES}", warm, "s"),
            Row(f"{backend}: on the disk", disk / 1e6, "MB", note="hard links into uv's cache count in both"),
        ]
    shutil.rmtree(folder)
    return Table("envs", "upx setup", tuple(rows), (load(),))


def _build(backend: str, home: Path, cache: Path) -> float:
    return run([UPX, "setup", backend], env=environment(home, UV_CACHE_DIR=str(cache)))[0]


def _disk(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
