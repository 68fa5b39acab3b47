"""Wait for the lock of an environment, or of its build."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from upx.errors import EnvBuildError
from upx.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upx.locks import HeldLock

POLL_S = 0.05


def wait_lock(
    path: Path, *, timeout: float, shared: bool = False, on_wait: Callable[[], None] | None = None
) -> HeldLock:
    """The lock of ``path``; ``on_wait`` is called once if it is taken. EnvBuildError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (lock := try_lock(path, shared=shared)) is None:
        if on_wait is not None:
            on_wait()
            on_wait = None
        if time.monotonic() > deadline:
            hint = "end the other upx, or wait for it, and run the command again"
            raise EnvBuildError(f"another process has held {path} for {timeout:.0f} s", hint=hint)
        time.sleep(POLL_S)
    return lock
