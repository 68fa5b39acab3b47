"""Enlarge pictures with any super-resolution model, each in its own environment.

``upx.up(picture)`` enlarges one picture; ``upx.Upscaler`` keeps a model warm for many. Importing the package imports
nothing heavy; the first use does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upx.client import Upscaler, up
    from upx.errors import UpxError
    from upx.futures import JobFuture
    from upx.result import JobProgress, Record, Result

__all__ = ["JobFuture", "JobProgress", "Record", "Result", "Upscaler", "UpxError", "__version__", "up"]

__version__ = "0.1.0"

_HOMES = {
    "JobFuture": "upx.futures",
    "JobProgress": "upx.result",
    "Record": "upx.result",
    "Result": "upx.result",
    "Upscaler": "upx.client",
    "UpxError": "upx.errors",
    "up": "upx.client",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'upx' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether they were used yet or not."""
    return sorted(__all__)
