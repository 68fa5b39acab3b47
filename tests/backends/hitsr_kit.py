"""Weights of HiT-SR made up from their names alone, files of them, and what upstream's networks answer with them.

The recipe is the golden files' own (numpy's generator, seeded with the name's crc), restated: with it a clone that has
no golden files checks the networks against samples of upstream's results, in tests/data/hitsr_samples.json.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upx.assets.inspect.layouts import read_layout, sizes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = ROOT / "backends" / "upx_backends" / "hitsr" / "layouts"
SAMPLES = ROOT / "tests" / "data" / "hitsr_samples.json"
FAMILIES = ("sir", "sng", "srf")
NAMES = {"float32": "F32", "int64": "I64"}

Tensors = dict[str, "NDArray[Any]"]


def weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Normal numbers of the size that this kind of tensor has."""
    numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("relative_position_bias_table"):
        numbers *= 0.5
    elif len(shape) > 1:
        numbers *= 0.5 / np.sqrt(float(np.prod(shape[1:])))
    elif name.endswith(".weight"):
        numbers = 1 + 0.2 * numbers
    else:
        numbers *= 0.1
    return numbers.astype(np.float32)


def recipe(family: str, scale: int) -> Tensors:
    """Every tensor of a network as released; of the constant index, what all files hold."""
    made: Tensors = {}
    for name, shape in read_layout(LAYOUTS / f"hit-{family}.json").tensors.items():
        if name.endswith("relative_position_index"):
            made[name] = np.array([[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
        else:
            made[name] = weight(name, sizes(shape, scale))
    return made


def write_safetensors(path: Path, tensors: Tensors) -> Path:
    """A file of them, in their order."""
    table, at = {}, 0
    for name, array in tensors.items():
        table[name] = {
            "dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": [at, at := at + array.nbytes]
        }  # fmt: skip
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.writelines(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    return path


class Samples:
    """Points of upstream's results for one picture, under the recipe's weights."""

    def __init__(self) -> None:
        table = json.loads(SAMPLES.read_text(encoding="utf-8"))
        self.tolerance: float = table["tolerance"]
        height, width = table["input"]["size"]
        packed = base64.b64decode(table["input"]["zlib"])
        self.picture = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, width, 3)
        self.networks: list[dict[str, Any]] = table["networks"]

    def farthest(self, network: dict[str, Any], result: NDArray[np.float32]) -> float:
        """How far a result is from upstream's, at the sampled points and in its mean and deviation."""
        assert list(result.shape) == network["shape"]
        at = result.reshape(-1)[network["at"]]
        off = np.abs(at - np.array(network["values"])).max()
        spread = abs(result.std(dtype=np.float64) - network["std"])
        return float(max(off, spread, abs(result.mean(dtype=np.float64) - network["mean"])))


def luma(picture: NDArray[np.uint8], border: int) -> NDArray[np.float64]:
    """BT.601's Y, 16..235, without the border: what papers measure on."""
    inner = picture[border:-border, border:-border].astype(np.float64)
    return 16 + inner @ np.array([65.481, 128.553, 24.966]) / 255


def psnr(picture: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> float:
    """Decibels on the luma."""
    off = luma(picture, border) - luma(truth, border)
    return float(10 * np.log10(255**2 / np.mean(off**2)))


def first(names: Iterable[str], part: str) -> str:
    """The first name that has that part."""
    return next(name for name in names if part in name)
