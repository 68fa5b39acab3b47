"""A backend whose model is one file of weights, which decides its pixels: without it there is no picture."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from shelf_kit import MANUAL, add_backend, asset_text, make_shelf

from upx.assets.obtain import Need
from upx.assets.receipts import Origin

if TYPE_CHECKING:
    from fault_server import Content
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
schema = 1
name = "heavy"
default_model = "heavy-x2"
devices = ["cpu"]
precisions = ["fp32"]
licence = {licence}
[env]
python = "3.11"
imports = ["msgpack", "zmq", "numpy"]
[tiling]
stitch = "crop"
minimum_tile = 16
[parameters.delay]
kind = "float"
default = 0.0
help = "seconds to wait before each tile"
[[models]]
name = "heavy-x2"
scale = 2
{assets}
"""
WORKER = '''
"""Repeats pixels, each changed by the weights' last byte."""

import time
from pathlib import Path

import numpy as np

from upx_protocol.upscaler import LoadResult, Upscaler


class Backend(Upscaler):
    def load(self, request):
        self.last = np.uint8(Path(request.files["weights"]).read_bytes()[-1])
        return LoadResult(scale=2, dtypes=("uint8",))

    def upscale(self, batch):
        time.sleep(batch.params.get("delay", 0))
        return [np.repeat(np.repeat(tile ^ self.last, 2, axis=0), 2, axis=1) for tile in batch.tiles]
'''
FREE, BINDING = (
    '{ name = "MIT" }',
    '{ name = "CC-BY-NC-4.0", link = "https://example.org/terms", noncommercial = true }',
)


def heavy(home: Path, content: Content, *more: str, licence: str = FREE, source: str = MANUAL, **facts: str) -> Path:
    """Put the backend into a home; the file itself is nowhere yet."""
    assets = asset_text(content, source, **facts) + "".join(more)
    folder = add_backend(home, name="heavy", text=HEAD.format(licence=licence, assets=assets))
    (folder / "worker.py").write_text(WORKER)
    shutil.copy(ROOT / "envs" / "nearest.lock", folder / "env.lock")
    return folder


def keep(home: Path, content: Content, role: str = "weights") -> None:
    """Put the file into a home's store, as if it had been fetched."""
    shelf = make_shelf(home)
    backend = shelf.catalog.backend("heavy")
    model = backend.models[0]
    need = Need(backend, model, next(asset for asset in model.assets if asset.role == role))
    path = home / "brought"
    with path.open("wb") as file:
        file.writelines(content.blocks())
    shelf.obtainer().keep(need, path, Origin({"kind": "url", "url": ""}, verified="manifest"))
    path.unlink()


def enlarged(picture: NDArray[np.uint8], content: Content) -> NDArray[np.uint8]:
    """What comes of a picture with these weights."""
    last = np.uint8(content.read(content.size - 1, 1)[0])
    return np.repeat(np.repeat(picture ^ last, 2, axis=0), 2, axis=1)
