"""The compute side of a worker: imports the backend, then runs its tasks one by one in the main thread."""

from __future__ import annotations

import importlib
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Optional, Tuple, cast

import numpy as np

from upx_protocol.actions import (
    Advanced,
    BatchEnded,
    BatchTask,
    Failure,
    Imported,
    ImportFailed,
    LoadEnded,
    LoadTask,
    Outcome,
    Task,
    TilePlaced,
    UnloadEnded,
)
from upx_protocol.arrays import PACKS, dtype_name, to_dtype, to_float
from upx_protocol.errors import BadInputError, FatalError, MalformedError, UpscalerError
from upx_protocol.packing import packed
from upx_protocol.steward import LackingError
from upx_protocol.upscaler import Batch, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_protocol.messages import Load
    from upx_protocol.sessions import Ticket
    from upx_protocol.steward import Steward

log = logging.getLogger("upx.worker")
# What a backend may raise that must not end the worker; a SystemExit is some library's idea of an error.
CAUGHT = (Exception, SystemExit)


class Compute:
    """Runs tasks until ``next_task`` has none left. ``report`` takes outcomes, from this thread.

    ``steward`` says what a load means on this machine, where hosts cannot know.
    """

    def __init__(
        self, module: str, device: str, next_task: Callable[[], Optional[Task]], steward: Optional[Steward] = None
    ) -> None:
        self._module, self._device, self._next_task, self._steward = module, device, next_task, steward
        self._backend = Upscaler()
        self._loaded: Optional[LoadResult] = None

    def run(self, report: Callable[[Outcome], None]) -> None:
        """Import the backend, then work; returns when the loop says so, also after a failed import."""
        imported = self._import()
        report(imported)
        while True:
            task = self._next_task()
            if task is None:
                return
            if isinstance(task, LoadTask):
                report(self._load(task, report))
            elif isinstance(task, BatchTask):
                report(self._upscale(task.ticket, report))
            else:
                report(self._unload())
            # It holds the memory of its tiles, and the next may come in hours.
            del task

    def _import(self) -> Outcome:
        try:
            module = importlib.import_module(self._module)
            self._backend = cast("Upscaler", module.Backend())
            return Imported(self._backend.device(self._device))
        except CAUGHT as error:
            log.exception("cannot import %s", self._module)
            return ImportFailed(Failure.of(error, final=True))

    def _load(self, task: LoadTask, report: Callable[[Outcome], None]) -> LoadEnded:
        started = time.perf_counter()
        self._loaded = None

        def progress(stage: str, done: float, total: float) -> None:
            report(Advanced(stage[:100], float(done), float(total)))

        try:
            request = task.request
            if self._steward is not None:
                request = replace(self._steward.resolve(request, progress), device=self._device)
            result = _plain(self._backend.load(_order(request, progress)))
        except CAUGHT as error:
            wanted = error.files if isinstance(error, LackingError) else ()
            return LoadEnded(failure=_failure(error, f"loading {task.request.model}"), wanted=wanted)
        self._loaded = result
        return LoadEnded(result=result, seconds=time.perf_counter() - started, weights=request.weights)

    def _unload(self) -> UnloadEnded:
        self._loaded = None
        try:
            self._backend.unload()
        except CAUGHT as error:
            return UnloadEnded(_failure(error, "unloading"))
        return UnloadEnded()

    def _upscale(self, ticket: Ticket, report: Callable[[Outcome], None]) -> BatchEnded:
        started = time.perf_counter()
        ticket.begin()
        try:
            results = self._results(ticket, report)
        except CAUGHT as error:
            return BatchEnded(failure=_failure(error, f"batch {ticket.request.id}"))
        # Packing is the wire's time: a host compares with it what computing alone takes.
        seconds = time.perf_counter() - started
        packs = ticket.request.codec == PACKS
        return BatchEnded(tuple(packed(each) for each in results) if packs else results, seconds=seconds)

    def _results(self, ticket: Ticket, report: Callable[[Outcome], None]) -> Tuple[NDArray[Any], ...]:
        loaded, request, started = self._loaded, ticket.request, time.perf_counter()
        if loaded is None:
            raise BadInputError("load")
        try:
            tiles = ticket.arrays()
        except MalformedError as error:
            raise BadInputError(str(error)) from error
        if dtype_name(tiles[0]) not in loaded.dtypes:
            tiles = [to_float(tile) for tile in tiles]
        results = self._backend.upscale(Batch(tiles, request.seeds, request.params))
        if len(results) != len(tiles):
            raise UpscalerError(f"{len(results)} results for {len(tiles)} tiles")
        height, width = tiles[0].shape[:2]
        shape = (height * loaded.scale, width * loaded.scale, 3)
        if not request.outs:
            return tuple(deliver(result, shape, request.out_dtype, rounding=loaded.rounding) for result in results)
        share = (time.perf_counter() - started) / len(tiles)
        for index, result in enumerate(results):
            began = time.perf_counter()
            deliver(result, shape, request.out_dtype, rounding=loaded.rounding, out=ticket.room(index))
            # The host reads this one while the next is written.
            report(TilePlaced(index, share + time.perf_counter() - began))
        return ()


def _order(request: Load, progress: Callable[[str, float, float], None]) -> LoadRequest:
    return LoadRequest(
        model=request.model,
        files=request.files,
        device=request.device,
        precision=request.precision,
        threads=request.threads,
        params=request.params,
        progress=progress,
    )


def deliver(
    result: NDArray[Any],
    shape: Tuple[int, int, int],
    dtype: str,
    *,
    rounding: str = "half_even",
    out: Optional[NDArray[Any]] = None,
) -> NDArray[Any]:
    """A backend's result in the dtype asked for, C order; one that has it already passes through.

    ``out``: where it has to lie.
    UpscalerError for another shape, for a dtype that is no picture's, and for values that are not finite.
    """
    if result.shape != shape:
        raise UpscalerError(f"a result of shape {result.shape}, {shape} expected")
    if dtype_name(result) == dtype and result.dtype.kind == "u":
        if out is None:
            return np.ascontiguousarray(result)
        np.copyto(out, result)
        return out
    if result.dtype.kind == "f":
        # One pass that costs a fraction of the rounding: a single NaN or infinity reaches the sum.
        if not math.isfinite(float(result.sum(dtype=np.float32))):
            raise UpscalerError("the model produced values that are not finite")
    elif result.dtype.name not in ("uint8", "uint16"):
        raise UpscalerError(f"a result of dtype {result.dtype.name}")
    return to_dtype(to_float(result), dtype, rounding=rounding, out=out)


def _plain(result: LoadResult) -> LoadResult:
    """Frameworks' own numbers become Python's, which is what the wire takes."""
    return LoadResult(
        scale=int(result.scale),
        minimum=int(result.minimum),
        multiple_of=int(result.multiple_of),
        square=bool(result.square),
        fixed=int(result.fixed),
        device=str(result.device),
        device_name=str(result.device_name),
        precision=str(result.precision),
        dtypes=tuple(result.dtypes),
        rounding=result.rounding,
    )


def _failure(error: BaseException, doing: str) -> Failure:
    """The wire's class; what nobody raised on purpose is logged with its traceback."""
    failure = Failure.of(error, final=isinstance(error, FatalError))
    if isinstance(error, UpscalerError):
        log.warning("%s: %s", doing, failure.message)
    else:
        log.error("%s: %s", doing, failure.message, exc_info=error)
    return failure
