"""Drain the box of this machine from another command."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from upx.remote.keys import KeyRing
from upx.workers import control, registry
from upx.workers.channel import key_text

if TYPE_CHECKING:
    from upx.config import Settings

DRAIN_S = 600.0


def drain_all(settings: Settings) -> list[control.Stopped]:
    """Ask every served worker to finish and leave, and wait for that, ten minutes at most."""
    key = KeyRing(settings).public("server")
    served = [
        info for info in registry.list_workers(settings) if info.curve_public and key_text(info.curve_public) == key
    ]
    if not served:
        return []
    with ThreadPoolExecutor(len(served), "upx-drain") as threads:
        return list(threads.map(partial(control.end_worker, settings=settings, force=False, timeout=DRAIN_S), served))
