"""Drain the box of this machine from another command."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from upx.workers import control, registry

if TYPE_CHECKING:
    from upx.config import Settings

DRAIN_S, BIND_S = 600.0, 10.0


def drain_all(settings: Settings) -> list[control.Stopped]:
    """Ask every served worker to finish and leave, and wait for that, ten minutes at most."""
    until = time.monotonic() + BIND_S
    served = _served(settings)
    # One that is just starting has not said yet whose it is.
    while any(info.starting for info in registry.list_workers(settings)) and time.monotonic() < until:
        time.sleep(0.05)
        served = _served(settings)
    if not served:
        return []
    with ThreadPoolExecutor(len(served), "upx-drain") as threads:
        return list(threads.map(partial(control.end_worker, settings=settings, force=False, timeout=DRAIN_S), served))


def _served(settings: Settings) -> list[registry.WorkerInfo]:
    return [info for info in registry.list_workers(settings) if info.box]
