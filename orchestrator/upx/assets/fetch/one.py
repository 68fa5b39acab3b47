"""Fetch one file, once on this machine however many ask for it."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from upx.assets.fetch.sweep import remove_part
from upx.assets.fetch.telling import Telling
from upx.errors import CancelledError, FetchError
from upx.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upx.assets.fetch.network import Network
    from upx.assets.fetch.want import FetchProgress, Got, Want
    from upx.locks import HeldLock

POLL_S = 0.1


def fetch(
    want: Want,
    parts: Path,
    network: Network,
    *,
    present: Callable[[], bool],
    take: Callable[[Got], None],
    report: Callable[[FetchProgress], None],
    cancel: threading.Event | None = None,
) -> Got | None:
    """Fetch ``want`` into ``parts``, resuming what is there, and hand the whole file to ``take``.

    Under the lock of its part, which all processes share: while another holds it this one waits, and returns None if
    ``present`` says afterwards that the file is there. ``take`` renames ``got.path`` to where it belongs; what it
    leaves is removed. If it raises, the part stays and the next fetch finds it whole.

    FetchError and AccessError when no source gives the file, StoreFullError, CancelledError once ``cancel`` is set.
    Whatever came stays in ``parts`` and is continued by the next fetch.
    """
    cancel = cancel or threading.Event()
    telling = Telling(want, report)
    try:
        with _wait_lock(want, parts, telling, cancel) as lock:
            got = None
            if present():
                remove_part(parts, want.key)  # of one that was killed just after it was taken
            else:
                got = _fetch_held(want, lock, network, take, telling, cancel)
            if not lock.path.with_suffix(".part").exists():
                lock.discard()
    except BaseException as error:
        telling.say("failed", str(error))
        raise
    telling.say("done")
    return got


def _fetch_held(
    want: Want,
    lock: HeldLock,
    network: Network,
    take: Callable[[Got], None],
    telling: Telling,
    cancel: threading.Event,
) -> Got:
    from upx.assets.fetch.download import Download  # with ssl and http behind it
    from upx.assets.fetch.part import Part

    # Where locks are not enforced another may be at the same file: each takes its own, and nothing is resumed.
    key = want.key if lock.enforced else f"{want.key}-{secrets.token_hex(6)}"
    with Part(lock.path.parent, key, want.name) as part:
        got = Download(want, part, network, telling, cancel).run()
        part.close()  # a file that is open cannot be renamed on Windows
        take(got)
        part.discard()
    return got


def _wait_lock(want: Want, parts: Path, telling: Telling, cancel: threading.Event) -> HeldLock:
    try:
        while (lock := try_lock(parts / f"{want.key}.lock")) is None:
            telling.say("waiting", "another process fetches it")
            if cancel.wait(POLL_S):
                raise CancelledError(f"{want.name}: cancelled")
    except OSError as error:
        hint = f"look at the folder {parts}"
        raise FetchError(f"{want.name}: its part cannot be locked: {error.strerror}", hint=hint) from error
    return lock
