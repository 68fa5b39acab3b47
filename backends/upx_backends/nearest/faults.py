"""Failures on demand, so that what a host does about them can be seen: slow, crash, hang, out of memory, refuse.

A rule names a colour as six hex digits; it applies to a tile of which any pixel has that colour (8 bits a channel).
A rule with a file applies while the file exists, and removes it first, so that the next try succeeds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upx_protocol.arrays import to_dtype, to_float
from upx_protocol.errors import BadInputError, FatalError, OutOfMemoryError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from upx_protocol.messages import Scalar
    from upx_protocol.upscaler import Batch, LoadRequest

CRASH_STATUS = 70
FOREVER_S = 1_000_000.0


def on_load(request: LoadRequest) -> None:
    """Obey ``load_delay`` (seconds, in ten steps of progress) and ``load_fail`` (a class of failure, or crash)."""
    delay = _number(request.params, "load_delay")
    for step in range(10 if delay else 0):
        request.progress("waiting", step, 10)
        time.sleep(delay / 10)
    kind = str(request.params.get("load_fail") or "")
    if kind == "crash":
        _crash()
    errors = {"oom": OutOfMemoryError, "input": BadInputError, "transient": TransientError, "fatal": FatalError}
    if kind in errors:
        raise errors[kind]("told to fail while loading")


def on_batch(batch: Batch) -> None:
    """Obey the job's parameters, tile by tile."""
    for tile in batch.tiles:
        _on_tile(tile, batch.params)


def _on_tile(tile: NDArray[Any], params: Mapping[str, Scalar]) -> None:
    time.sleep(_number(params, "delay"))
    most = _number(params, "crash_above")
    if _applies(tile, params, "crash") or (most and max(tile.shape[:2]) > most) or _taken(params, "crash_once_file"):
        _crash()
    if _applies(tile, params, "hang") or _taken(params, "hang_once_file"):
        time.sleep(FOREVER_S)
    above = _number(params, "oom_above")
    if _applies(tile, params, "oom") or (above and max(tile.shape[:2]) > above):
        raise OutOfMemoryError("told to run out of memory")
    if _applies(tile, params, "fail"):
        raise BadInputError("told to refuse this tile")
    if _applies(tile, params, "error"):
        raise RuntimeError("told to break")


def _crash() -> None:
    # As after some computing: what was said before has left the process.
    time.sleep(0.05)
    os._exit(CRASH_STATUS)


def _number(params: Mapping[str, Scalar], name: str) -> float:
    value = params.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _applies(tile: NDArray[Any], params: Mapping[str, Scalar], what: str) -> bool:
    """Whether ``<what>_on`` names a colour that the tile holds."""
    colour = str(params.get(f"{what}_on") or "").lstrip("#")
    if not colour:
        return False
    wanted = np.frombuffer(bytes.fromhex(colour), dtype=np.uint8)
    pixels = tile if tile.dtype == np.uint8 else to_dtype(to_float(tile), "uint8")
    return bool((pixels == wanted).all(axis=2).any())


def _taken(params: Mapping[str, Scalar], name: str) -> bool:
    """Whether the file that ``name`` points to was there; of several workers only one finds it."""
    path = str(params.get(name) or "")
    if not path:
        return False
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return False
    return True
