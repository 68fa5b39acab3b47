"""What ``upx stop`` and ``upx worker drain`` say of the workers that they were to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx.cli._results import Stopped
from upx.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.cli._console import Console
    from upx.workers import control


def tell(ended: Sequence[control.Stopped], console: Console, *, nobody: str, hint: str) -> None:
    """A line a worker, or ``nobody``; WorkerError with ``hint`` where one has not ended."""
    # Several words may mean the same worker.
    rows = {each.worker.name: each for each in ended}
    console.results(*(Stopped(name, each.worker.backend, each.worker.pid, each.how) for name, each in rows.items()))
    if not rows:
        console.note(f"upx: {nobody}")
    busy = [name for name, each in rows.items() if not each.ended]
    if busy:
        raise WorkerError(f"still at work: {', '.join(busy)}", hint=hint)
