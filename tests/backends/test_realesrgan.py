"""The tail of the large networks, run in strips, gives what it gives as a whole; the small network has no tail."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.config import Settings
    from upx.specs import ModelSpec

ROOT = Path(__file__).resolve().parents[2]
# Runs in the backend's own environment, which has neither pytest nor upx.
PROGRAM = """
import json, sys

sys.path[:0] = sys.argv[1:3]
import numpy as np

from upx_backends.realesrgan import worker
from upx_protocol.upscaler import Batch, LoadRequest

request = LoadRequest(model=sys.argv[3], files=json.loads(sys.argv[4]), threads=1)
picture = np.random.default_rng(3).integers(0, 256, (47, 61, 3), np.uint8)
results = []
for strip in (1_000_000, 61 * 20, 61):
    worker.STRIP = strip
    backend = worker.Backend()
    backend.load(request)
    results.append(backend.upscale(Batch([picture]))[0])
print(json.dumps({
    "tail": backend.tail,
    "shapes": [result.shape for result in results],
    "differences": [float(np.abs(result - results[0]).max()) for result in results[1:]],
}))
"""


def run(model: ModelSpec, python: Path, files: dict[str, str]) -> dict[str, Any]:
    folders = [str(ROOT / "protocol"), str(ROOT / "backends")]
    command = [str(python), "-I", "-c", PROGRAM, *folders, model.name, json.dumps(files)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "tail"),
    [("realesrgan-x4plus", True), ("realesrgan-x4plus-anime", True), ("realesr-animevideov3-x2", False)],
)
def test_strips_of_rows_give_what_the_whole_gives(
    *, name: str, tail: bool, settings: Settings, backend_python: Callable[[str], Path]
) -> None:
    from upx.catalog import Catalog
    from upx.specs import PackageSource
    from upx.venvs.builder import EnvBuilder

    spec = Catalog(settings).backend("realesrgan")
    python = backend_python(spec.name)
    venv = EnvBuilder(settings).find(spec.env)
    assert venv is not None
    model = spec.model(name)
    files: dict[str, str] = {}
    for asset in model.assets:
        (source,) = asset.sources
        assert isinstance(source, PackageSource)
        files[asset.role] = str(venv.site_packages / source.package / source.path)
    found = run(model, python, files)
    assert (found["tail"] is not None) == tail
    assert found["shapes"] == [[47 * model.scale, 61 * model.scale, 3]] * 3
    # Of 1: the order of additions follows the shape, and a level of 8 bits is 4e-3.
    assert max(found["differences"]) < 2e-5
