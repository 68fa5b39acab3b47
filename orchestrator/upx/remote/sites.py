"""Which machines a request means: this one, and workers of boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.errors import UsageError
from upx.remote.boxes import Book
from upx.remote.keys import KeyRing, z85
from upx.workers.far import FarSite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.config import Settings

ANY, LOCAL = "any", "local"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a job may run. ``sites``: the first worker of each box, which tells of the others."""

    local: bool
    sites: tuple[FarSite, ...] = ()


def places(on: Sequence[str], backend: str, settings: Settings) -> Places:
    """What ``on`` names for a backend; UsageError for a box that is not known or serves another.

    "any": this machine and every box that serves it, or was never reached; nothing: this machine.
    """
    if not on:
        return Places(local=True)
    book = Book(settings)
    boxes = [book.get(name) for name in dict.fromkeys(on) if name not in {ANY, LOCAL}]
    for box in boxes:
        if box.backend not in {backend, ""}:
            raise UsageError(
                f"{box.name} serves {box.backend}, not {backend}", hint=f"-b {box.backend}, or another --on"
            )
    if ANY in on:
        boxes = [box for box in book.all() if box.backend in {backend, ""}]
    if not boxes:
        return Places(local=True)
    keys = KeyRing(settings).client()
    sites = tuple(FarSite(box.name, box.endpoint, z85(box.key), keys) for box in boxes)
    return Places(ANY in on or LOCAL in on, sites)
