"""The workers of one plan, as the rest of the host uses them: submit tiles, get futures; start, adopt, end unseen."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from upx.errors import ParameterError, WorkerError, WorkerStartError
from upx.futures import wait_for
from upx.workers.channel import default_transport
from upx.workers.happenings import JobCancelled, Submitted, Wanted
from upx.workers.launch import Launch
from upx.workers.plan import Timeouts, WorkerPlan
from upx.workers.seats import Seats
from upx.workers.state import DEPTH
from upx.workers.supervisor import Supervisor
from upx.workers.tiles import Tile, TileResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from upx.config import Settings
    from upx.specs import Capabilities
    from upx.trace import TileTrace
    from upx.workers.endpoints import Transport
    from upx.workers.events import Event
    from upx.workers.far import FarSite
    from upx.workers.plan import LoadPlan
    from upx_protocol.messages import Scalar

MOST_TILES = 256

# Forgotten pools are closed at the interpreter's end; in a forked copy of the host, none may be used.
_open: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


class WorkerPool:
    """Up to ``plan.workers`` workers, started when tiles come, and those of ``sites``, which are other machines.

    A plan that is no ``WorkerPlan`` starts none here. ``precision``: what boxes are asked for. Every method may be
    called from any thread.

    ``on_event`` and the futures' callbacks are called on one thread of the pool's, apart from its I/O. ``transport``:
    "ipc", or "tcp" on the loopback with CURVE; by default what this platform has.
    """

    def __init__(
        self,
        plan: LoadPlan,
        settings: Settings,
        *,
        on_event: Callable[[Event], None] | None = None,
        timeouts: Timeouts | None = None,
        transport: Transport | None = None,
        sites: Sequence[FarSite] = (),
        precision: str = "auto",
    ) -> None:
        self.plan = plan
        self._sites, self._precision = tuple(sites), precision
        self._settings, self._on_event = settings, on_event
        self._timeouts = timeouts or Timeouts()
        self._transport: Transport | None = transport
        self._lock = threading.Lock()
        self._supervisor: Supervisor | None = None
        self._closed = False
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._taken: set[tuple[Path, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to adopt or spawn the first worker, without waiting for it."""
        self._running().post(Wanted(time.monotonic()))

    def ready(self, timeout: float) -> Capabilities:
        """Wait until one worker has the model; what it can do.

        WorkerStartError (also after ``timeout`` seconds), OutOfMemoryError, WeightsError, or ProtocolVersionError;
        the worker's last words are the error's notes.
        """
        waiter: Future[Capabilities] = Future()
        waiter.set_running_or_notify_cancel()
        self._running().post(Wanted(time.monotonic()), ready=waiter)
        try:
            return wait_for(waiter, timeout=timeout)
        except TimeoutError as error:
            raise WorkerStartError(
                f"no worker of {self.plan.backend} was ready within {timeout:g} s",
                hint="a first start can be slow: try again, or upx doctor",
            ) from error

    def submit(
        self,
        tiles: Sequence[NDArray[Any]],
        *,
        out_dtype: str,
        job: int,
        seeds: Sequence[int] = (),
        params: Mapping[str, Scalar] | None = None,
        traces: Sequence[TileTrace] = (),
    ) -> list[Future[TileResult]]:
        """Queue a batch: tiles (H, W, 3) of one shape and dtype. One future per tile; never waits.

        The arrays must stay as they are until all futures are done. ``seeds``, ``traces``: one per tile, or none.
        Futures fail with OutOfMemoryError (the whole batch), TileRefusedError, ModelError, PoisonTileError,
        WorkerLostError or CancelledError. ParameterError for what is no batch; WorkerError from a closed pool or a
        forked process.
        """
        arrays = [np.ascontiguousarray(tile) for tile in tiles]
        _check(arrays, seeds)
        supervisor = self._running()
        if traces:
            supervisor.trace()
        numbers = tuple(next(self._numbers) for _ in arrays)
        waiting = set(numbers)
        futures: list[Future[TileResult]] = [supervisor.promise() for _ in arrays]
        entries = {
            number: Tile(
                array, future, out_dtype, seeds[index] if seeds else None, dict(params or {}),
                f"tile {number} of job {job}", numbers, waiting, traces[index] if traces else None,
            )
            for index, (number, array, future) in enumerate(zip(numbers, arrays, futures, strict=True))
        }  # fmt: skip
        nbytes, pixels = sum(array.nbytes for array in arrays), sum(array.shape[0] * array.shape[1] for array in arrays)
        supervisor.post(Submitted(time.monotonic(), job, numbers, nbytes, pixels), tiles=entries)
        return futures

    def cancel(self, job: int) -> None:
        """Drop a job's tiles; their futures fail with CancelledError. What a worker computes is ended by it alone."""
        with self._lock:
            supervisor = None if self._closed else self._supervisor
        if supervisor is not None:
            supervisor.post(JobCancelled(time.monotonic(), job))

    @property
    def capacity(self) -> int:
        """Batches worth keeping in flight: one that each worker computes, and one that waits there."""
        supervisor = self._supervisor
        return supervisor.capacity if supervisor is not None else DEPTH * max(1, self.plan.workers + len(self._sites))

    @property
    def io_seconds(self) -> float:
        """CPU seconds of the I/O thread so far: what sending and receiving cost this process."""
        supervisor = self._supervisor
        return supervisor.io_seconds if supervisor is not None else 0.0

    def close(self, *, kill: bool = False, timeout: float = 5.0) -> None:
        """End: what waits fails with CancelledError, tied workers are ended and reaped, detached ones live on.

        With ``kill`` tied workers are not asked first. Nothing is left after ``timeout`` seconds. Again does nothing.
        """
        with self._lock:
            supervisor, closed = self._supervisor, self._closed
            self._closed, self._supervisor = True, None
            _open.discard(self)
        if supervisor is not None and not closed and os.getpid() == self._pid:
            supervisor.finish(kill=kill, timeout=timeout)

    def _running(self) -> Supervisor:
        if os.getpid() != self._pid:
            raise WorkerError(
                "a forked copy of the host cannot use its workers", hint="make the Upscaler in the new process"
            )
        with self._lock:
            if self._closed:
                raise WorkerError("the pool is closed", hint="make a new one")
            if self._supervisor is None:
                self._supervisor = Supervisor(self.plan, self._timeouts, self._seats(), self._on_event or _unheard)
                self._supervisor.start()
                _open.add(self)
            return self._supervisor

    def _seats(self) -> Seats:
        local = max(1, self.plan.workers) if isinstance(self.plan, WorkerPlan) else 0
        return Seats(self.plan, self._timeouts, self._search, local=local, sites=self._sites, precision=self._precision)

    def _search(self) -> Launch:
        supervisor = self._supervisor
        if not isinstance(self.plan, WorkerPlan):
            raise WorkerError("this pool starts no workers here", hint="this is a fault of upx; please report it")
        return Launch(
            self.plan,
            self._settings,
            transport=self._transport or default_transport(),
            timeouts=self._timeouts,
            taken=self._taken,
            report=supervisor.report if supervisor is not None else _unheard,
        )

    def forked(self) -> None:
        """In a forked copy: let go of what keeps tied workers alive. The host itself goes on undisturbed."""
        for fd in self._supervisor.ties if self._supervisor is not None else ():
            os.close(fd)


def _unheard(event: Event) -> None:
    del event


def _check(arrays: Sequence[NDArray[Any]], seeds: Sequence[int]) -> None:
    hint = "this is a fault of the caller"
    if not 1 <= len(arrays) <= MOST_TILES:
        raise ParameterError(f"a batch of {len(arrays)} tiles, not 1 to {MOST_TILES}", hint=hint)
    first = arrays[0]
    if any(array.shape != first.shape or array.dtype != first.dtype for array in arrays):
        raise ParameterError("tiles of one batch have one shape and dtype", hint=hint)
    if first.ndim != 3 or first.shape[2] != 3:  # noqa: PLR2004  (H, W, 3)
        raise ParameterError(f"a tile of shape {first.shape}, not (H, W, 3)", hint=hint)
    if len(seeds) not in {0, len(arrays)}:
        raise ParameterError(f"{len(seeds)} seeds for {len(arrays)} tiles", hint=hint)


def _close_all() -> None:
    for pool in list(_open):
        pool.close(timeout=2.0)


def _after_fork() -> None:
    for pool in list(_open):
        pool.forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
