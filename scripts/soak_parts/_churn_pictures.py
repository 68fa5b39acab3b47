"""Pictures of every kind and size for the churn, each with what it must become, computed by numpy alone."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from numpy.typing import NDArray

# Grey of three equal floats is a sum of three products.
FLOAT_SLACK = 1e-6


def enlarged(array: NDArray[Any], scale: int) -> NDArray[Any]:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


@dataclass(frozen=True)
class Case:
    """``check(output)`` says what is wrong with what a picture became, or nothing. ``pixels`` of the input."""

    name: str
    source: Any
    check: Callable[[Any], str]
    pixels: int
    out: Path | None = None


def draw(rng: random.Random, scale: int, *, most: int, folder: Path) -> Case:
    """A picture of 1 to ``most`` pixels, small ones as likely as large ones; a path's files lie in ``folder``."""
    height, width = _size(rng, most)
    kind = rng.choice(list(KINDS))
    noise = np.random.default_rng(rng.randrange(2**32))
    source, check, out = KINDS[kind](noise, (height, width), scale, folder)
    return Case(f"{kind} {width} x {height}", source, check, height * width, out)


def _size(rng: random.Random, most: int) -> tuple[int, int]:
    area = math.exp(rng.uniform(0, math.log(most)))
    height = max(1, min(most, round(math.sqrt(area) * math.exp(rng.uniform(-0.7, 0.7)))))
    return height, max(1, min(round(area / height), most // height))


def same(expected: NDArray[Any], slack: float = 0.0) -> Callable[[Any], str]:
    """A check that an output, a picture or an array, is ``expected``."""

    def check(output: Any) -> str:
        found = np.asarray(output)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return f"{found.shape} of {found.dtype} instead of {expected.shape} of {expected.dtype}"
        right = np.array_equal(found, expected) if not slack else np.allclose(found, expected, rtol=0, atol=slack)
        return "" if right else "the pixels differ"

    return check


def _rgb(noise, size, scale, _folder):
    array = noise.integers(0, 256, (*size, 3), np.uint8)
    return array, same(enlarged(array, scale)), None


def _grey(noise, size, scale, _folder):
    array = noise.integers(0, 256, size, np.uint8)
    return array, same(enlarged(array, scale)), None


def _float(noise, size, scale, _folder):
    array = noise.random((*size, 3), np.float32)
    return array, same(enlarged(array, scale)), None


def _float_grey(noise, size, scale, _folder):
    array = noise.random((*size, 1), np.float32)
    return array, same(enlarged(array, scale), FLOAT_SLACK), None


def _plain_alpha(noise, size, scale, _folder):
    array = noise.integers(0, 256, (*size, 4), np.uint8)
    array[..., 3] = noise.integers(0, 256)
    return array, same(enlarged(array, scale)), None


def _alpha(noise, size, scale, _folder):
    """Alpha that varies is enlarged by Pillow's bicubic; what can be seen keeps its colour, which is one here."""
    array = np.empty((*size, 4), np.uint8)
    array[..., :3] = colour = noise.integers(0, 256, 3, np.uint8)
    array[..., 3] = noise.integers(0, 256, size, np.uint8)
    plane, (height, width) = Image.fromarray(array[..., 3]), size
    bicubic = Image.Resampling.BICUBIC
    wanted = plane.resize((width * scale, height), bicubic).resize((width * scale, height * scale), bicubic)
    alpha, seen = np.asarray(wanted), enlarged(array[..., 3], scale) > 0

    def check(output: Any) -> str:
        found = np.asarray(output)
        if found.shape != (height * scale, width * scale, 4):
            return f"{found.shape}"
        if not np.array_equal(found[..., 3], alpha):
            return "the alpha differs"
        off = np.abs(found[..., :3].astype(int) - colour.astype(int)).max(axis=2)
        return "" if not (off[seen & (alpha > 0)] > 1).any() else "a colour differs"

    return array, check, None


def _pillow(noise, size, scale, _folder):
    array = noise.integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(array), same(enlarged(array, scale)), None


def _pillow_grey(noise, size, scale, _folder):
    array = noise.integers(0, 256, size, np.uint8)
    return Image.fromarray(array), same(enlarged(array, scale)), None


def _path(noise, size, scale, folder):
    array = noise.integers(0, 256, (*size, 3), np.uint8)
    place = Path(tempfile.mkdtemp(dir=folder))
    Image.fromarray(array).save(place / "in.png")
    wanted = same(enlarged(array, scale))

    def check(output: Any) -> str:
        with Image.open(output) as image:
            return wanted(image)

    return place / "in.png", check, place / "out.png"


KINDS = {
    "rgb": _rgb, "grey": _grey, "float": _float, "float grey": _float_grey, "plain alpha": _plain_alpha,
    "alpha": _alpha, "Pillow": _pillow, "Pillow grey": _pillow_grey, "path": _path,
}  # fmt: skip
