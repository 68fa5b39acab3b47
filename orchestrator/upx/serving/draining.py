"""Drain the box of this machine from another command."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from upx.remote.keys import KeyRing
from upx.workers import control, registry
from upx.workers.channel import key_text

if TYPE_CHECKING:
    from upx.config import Settings

DRAIN_S, BIND_S = 600.0, 10.0


def drain_all(settings: Settings) -> list[control.Stopped]:
    """Ask every served worker to finish and leave, and wait for that, ten minutes at most."""
    key = KeyRing(settings).public("server")
    until = time.monotonic() + BIND_S
    served = _served(settings, key)
    # One that is just starting has not said yet whose it is.
    while any(info.starting for info in registry.list_workers(settings)) and time.monotonic() < until:
        time.sleep(0.05)
        served = _served(settings, key)
    if not served:
        return []
    with ThreadPoolExecutor(len(served), "upx-drain") as threads:
        return list(threads.map(partial(control.end_worker, settings=settings, force=False, timeout=DRAIN_S), served))


def _served(settings: Settings, key: str) -> list[registry.WorkerInfo]:
    workers = registry.list_workers(settings)
    return [info for info in workers if info.curve_public and key_text(info.curve_public) == key]
