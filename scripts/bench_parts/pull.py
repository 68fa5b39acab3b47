"""Fetching from a local server against curl, tee and sha256sum in turns; and memory for 2 GB against 64 MB."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from pathlib import Path

from measure import OUT, PYTHON, environment, load, run
from report import Row, Table

TIMES = 7
SPEED_MB, SMALL_MB, LARGE_MB = 1000, 64, 2000
# The time of curl, tee and sha256sum is at least 0.8 of ours.
TIME_GOAL = 1 / 0.8
MEMORY_GOAL_MB = 8.0
SERVER = Path(__file__).with_name("pull_server.py")
HOST = Path(__file__).with_name("pull_host.py")


def measure() -> Table:
    folder = OUT / "pull"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [PYTHON, SERVER, *map(str, (SMALL_MB, SPEED_MB, LARGE_MB))]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        small, speed, large = (server.stdout.readline().split() for _ in range(3))
        try:
            return _measure(folder, small, speed, large)
        finally:
            server.communicate("")
            shutil.rmtree(folder)


def _measure(folder: Path, small: list[str], speed: list[str], large: list[str]) -> Table:
    _ours(folder, small)  # bytecode
    rounds = [(_ours(folder, speed)["seconds"], _reference(folder, speed)) for _ in range(TIMES)]
    ours, theirs = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(mine / other for mine, other in rounds)
    low, high = (_ours(folder, each)["peak"] / 1e6 for each in (small, large))
    rows = (
        Row(f"upx, {SPEED_MB} MB, median of {TIMES}", SPEED_MB / ours, "MB/s"),
        Row("curl | tee | sha256sum", SPEED_MB / theirs, "MB/s"),
        Row("upx's time against theirs", ratio, "x", TIME_GOAL, note=f"{1 / ratio:.2f} of their speed"),
        Row(f"peak memory, {SMALL_MB} MB", low, "MB"),
        Row(f"peak memory, {LARGE_MB} MB", high, "MB"),
        Row("difference", high - low, "MB", MEMORY_GOAL_MB),
    )
    return Table("pull", "Fetching from a local server", rows, (load(),))


def _ours(folder: Path, file: list[str]) -> dict[str, float]:
    _, text = run([PYTHON, HOST, *file, folder], env=environment())
    (folder / "pull.bin").unlink()
    return json.loads(text)


def _reference(folder: Path, file: list[str]) -> float:
    """Seconds of the shell's way; its sha256 has to be right too."""
    target = folder / "curl.bin"
    seconds, text = run(["sh", "-c", 'curl -s "$0" | tee "$1" | sha256sum', file[0], target])
    target.unlink()
    if text.split()[0] != file[1]:
        message = "curl fetched other bytes"
        raise RuntimeError(message)
    return seconds
