"""What a checkpoint may name beyond torch's own list, and what stands here for it: data, and nothing that acts.

Training code leaves its arguments and its best score beside the weights. ``argparse.Namespace`` holds attributes. A
score is a numpy scalar: read by our own few lines, since numpy's ``dtype`` takes a state from the pickle on trust.
Paths become pure ones, which cannot touch a disk and exist on every system. All else is refused by its name.
"""

from __future__ import annotations

import argparse
import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

_CODE = re.compile(r"[biuf][1248]")
_ORDERS = frozenset("<>=|")


class NumberType:
    """Stands for ``numpy.dtype``: a code as in ``f8`` and an order of bytes, for numbers alone."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """``(version, order, ...)``; the rest describes what is no number."""
        self.order = str(state[1])


def number(kind: object, data: object) -> float:
    """Stands for ``numpy.core.multiarray.scalar``: the number in ``data``; ValueError for anything else."""
    if not isinstance(kind, NumberType) or not _CODE.fullmatch(kind.code) or kind.order not in _ORDERS:
        raise ValueError("a numpy scalar that is no number")
    if not isinstance(data, bytes):
        raise TypeError("a numpy scalar without bytes")
    return np.frombuffer(data, np.dtype(kind.order + kind.code), count=1)[0].item()


ALLOWED: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "numpy.dtype": NumberType,
    "numpy.core.multiarray.scalar": number,
    "numpy._core.multiarray.scalar": number,
    "pathlib.PosixPath": PurePosixPath,
    "pathlib.PurePosixPath": PurePosixPath,
    "pathlib.WindowsPath": PureWindowsPath,
    "pathlib.PureWindowsPath": PureWindowsPath,
}
