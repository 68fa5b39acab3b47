"""The reference: a bare loop over the same network in one process, in the network's own environment plus Pillow."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from measure import OUT, UV, environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from upx.specs import TilePlan

LOOP = Path(__file__).with_name("bare_loop.py")
PILLOW = "pillow>=11.1"


def side_venv() -> tuple[Path, Path, Path]:
    """(python, param, bin): the packages of span's lock and Pillow, and the network's two files."""
    from upx.assets.find import Finder
    from upx.catalog import Catalog
    from upx.config import Settings
    from upx.venvs.venv import site_packages_path

    settings = Settings.from_env(environment())
    spec = Catalog(settings).backend("span")
    folder = OUT / "side-venv"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        _uv("venv", "--quiet", "--clear", "--python", spec.env.python, folder)
        _uv("pip", "sync", "--quiet", "--require-hashes", "--python", python, spec.env.lock)
        _uv("pip", "install", "--quiet", "--python", python, PILLOW)
        (folder / "ready").touch()
    finder = Finder(settings, spec, site_packages=site_packages_path(folder))
    model = spec.model(spec.default_model)
    files = {asset.role: finder.find(model, asset).path for asset in model.assets}
    return python, files["param"], files["weights"]


def _uv(*arguments: str | Path) -> None:
    subprocess.run([str(UV), *map(str, arguments)], check=True, stdin=subprocess.DEVNULL, timeout=600)


class Bare:
    """The loop's process, with the network loaded, given one picture or one tile at a time."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        python, param, weights = side_venv()
        # The same rules as the worker's manifest: waiting threads sleep instead of spinning.
        env = environment(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", OMP_NUM_THREADS=str(self._threads))
        command = [str(python), "-I", str(LOOP), str(param), str(weights), str(self._threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.network(64)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            with self._process as process:
                process.stdin.close()
                process.wait(timeout=30)

    def network(self, side: int) -> float:
        """Seconds of the network on one square tile, nothing else."""
        return self._ask({"side": side})["seconds"]

    def up(self, source: Path, target: Path, plan: TilePlan) -> dict[str, float]:
        """Seconds of one picture, file to file, with its stages."""
        return self._ask({"source": str(source), "target": str(target), "tiles": _tiles(plan)})

    def _ask(self, question: dict[str, object]) -> dict[str, float]:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            message = "the bare loop has ended"
            raise RuntimeError(message)
        return json.loads(answer)


def _tiles(plan: TilePlan) -> Sequence[Sequence[int]]:
    """(tile's top, bottom, left, right, core's top, bottom, left, right) of each tile."""
    return [
        (b.top, b.bottom, b.left, b.right, c.top, c.bottom, c.left, c.right)
        for b, c in zip(plan.boxes, plan.cores, strict=True)
    ]
