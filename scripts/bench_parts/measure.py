"""How the bench measures: commands timed from outside, medians, pictures of a given size, one home for all parts."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / ".cache" / "bench"
BIN = ROOT / ".venv" / "bin"
PYTHON, UPX, UV = BIN / "python", BIN / "upx", BIN / "uv"
LIMIT_S = 900.0


def environment(home: Path | None = None, **more: str) -> dict[str, str]:
    """The user's environment with our own home, and nothing that keeps Python from caching bytecode."""
    unwanted = ("UPX_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "UPX_HOME": str(home or OUT / "home"), **more}


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> tuple[float, str]:
    """(wall seconds, standard output) of a command that has to succeed."""
    begin = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), env=dict(env or environment()), cwd=OUT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        message = f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}"
        raise RuntimeError(message)
    return seconds, done.stdout


def median_of(count: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(count))


def load() -> str:
    """What else the machine was doing: a note for every table."""
    return "load average {:.2f} {:.2f} {:.2f} on {} cores".format(*os.getloadavg(), os.cpu_count())


def photo(name: str) -> Path:
    """A photograph that scikit-image ships."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        message = "scikit-image is not installed: scripts/install"
        raise RuntimeError(message)
    return Path(spec.origin).parent / "data" / name


def picture(width: int, height: int, *, of: str = "retina.jpg", crop: tuple[int, int, int, int] | None = None) -> Path:
    """A PNG of that size: a photograph, cropped if asked, resized; made once."""
    from PIL import Image

    path = OUT / "pictures" / f"{Path(of).stem}-{width}x{height}{'-crop' if crop else ''}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photo(of)) as source:
            rgb = source.convert("RGB")
            (rgb.crop(crop) if crop else rgb.resize((width, height), Image.Resampling.LANCZOS)).save(path)
    return path
