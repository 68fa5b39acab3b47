"""Fetch several files at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from upx.assets.fetch.one import fetch
from upx.errors import CancelledError, UpxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from upx.assets.fetch.network import Network
    from upx.assets.fetch.want import FetchProgress, Got, Job, Want

# On Windows only a wait that ends now and then lets Ctrl-C through.
_POLL_S = 0.5


def fetch_all(
    jobs: Sequence[Job],
    parts: Path,
    network: Network,
    *,
    report: Callable[[FetchProgress], None],
    cancel: threading.Event | None = None,
    at_once: int = 4,
) -> list[tuple[Want, UpxError]]:
    """Fetch the jobs, ``at_once`` at a time; those that failed, in the order of ``jobs``, stop no other.

    ``present`` and ``take`` of a job are called in the thread that fetches it, ``report`` in any of them but never by
    two at once. CancelledError once all threads have ended after ``cancel`` was set; a Ctrl-C, or an error that is
    none of upx's, sets it and is raised then. Parts stay.
    """
    cancel = cancel or threading.Event()
    told = _one_at_a_time(report)

    def run(job: Job) -> Got | None:
        return fetch(job.want, parts, network, present=job.present, take=job.take, report=told, cancel=cancel)

    with ThreadPoolExecutor(max(1, at_once), thread_name_prefix="upx-fetch") as pool:
        try:
            futures = [pool.submit(run, job) for job in jobs]
            _wait(futures)
        except BaseException:
            cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    failures = [(job.want, error) for job, future in zip(jobs, futures, strict=True) if (error := _error(future))]
    if cancel.is_set() and any(isinstance(error, CancelledError) for _, error in failures):
        raise CancelledError("cancelled; what came so far is kept")
    return failures


def _wait(futures: Sequence[Future[Got | None]]) -> None:
    """Until all have ended; what is no UpxError is raised as soon as it is there."""
    left = set(futures)
    while left:
        ended, left = wait(left, timeout=_POLL_S)
        for future in ended:
            error = future.exception()
            if error is not None and not isinstance(error, UpxError):
                raise error


def _error(future: Future[Got | None]) -> UpxError | None:
    error = future.exception()
    return error if isinstance(error, UpxError) else None


def _one_at_a_time(report: Callable[[FetchProgress], None]) -> Callable[[FetchProgress], None]:
    lock = threading.Lock()

    def tell(progress: FetchProgress) -> None:
        with lock:
            report(progress)

    return tell
