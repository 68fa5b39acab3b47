"""Run one job: the thread that runs it cuts tiles, stitches answers and encodes finished rows while workers compute.

When a device runs out of memory, the batch is halved, then the tile, and the job starts again.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from upx.errors import CancelledError, OutOfMemoryError, PictureTooLargeError, UnsupportedPictureError
from upx.media.channels import Channels
from upx.media.reading import open_picture
from upx.media.sources import from_array, from_pil
from upx.media.targets import TargetSpec, check_target, open_target
from upx.pipeline.batches import batches, tile_seed
from upx.pipeline.job import Stages, peak_memory
from upx.pipeline.notes import cutting_notes, precision_notes
from upx.pipeline.recolour import Recolour
from upx.pipeline.sizes import Sizes
from upx.result import JobProgress, Record, Result
from upx.stitching import Stitcher
from upx.tiling import pad_tile, plan_tiles, unpad

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from concurrent.futures import Future

    from upx.media.picture import Picture
    from upx.media.targets import OpenTarget, Target
    from upx.pipeline.job import Array, Job, Pool, Source, TileAnswer
    from upx.specs import Capabilities, ColourSpec, TilePlan

Finish: TypeAlias = "Callable[[int, Array], None]"
READY_TIMEOUT_S = 600.0
# What a job without a seed draws from, so that it can be repeated as well.
DEFAULT_SEED = 0
# How often a job that waits for tiles looks whether it was cancelled.
POLL_S = 0.1


def run_job(
    job: Job,
    pool: Pool,
    source: Source,
    target: Target,
    *,
    on_progress: Callable[[JobProgress], None] | None = None,
    cancel: threading.Event | None = None,
) -> Result:
    """Enlarge one picture; see ``Session.run``."""
    started = time.perf_counter()
    run = _Run(job, pool, on_progress or (lambda _progress: None), cancel or threading.Event())
    with run.opened(source) as picture:
        capabilities = run.ready()
        io_before = pool.io_seconds
        output, plan, notes = run.enlarge(picture, source, target, capabilities)
        run.stages.seconds["transport"] += pool.io_seconds - io_before
        size = (picture.width, picture.height)
        scale = capabilities.scale
        record = Record(
            input=str(source) if isinstance(source, Path) else type(source).__name__,
            output=str(output) if isinstance(output, Path) else None,
            status="done",
            in_size=size,
            out_size=(size[0] * scale, size[1] * scale),
            backend=job.route.backend.name,
            model=job.route.model.name,
            model_sha256=job.model_sha256 or capabilities.weights,
            scale=scale,
            device=capabilities.device,
            precision=capabilities.precision,
            licence=job.route.model.licence_names or None,
            params=dict(job.given),
            seed=job.options.seed,
            tile=(plan.tile_width, plan.tile_height),
            tiles=len(plan.boxes),
            seconds=round(time.perf_counter() - started, 4),
            peak_mem=peak_memory(),
            stages={stage: round(seconds, 4) for stage, seconds in run.stages.seconds.items()},
            warnings=(*picture.warnings, *precision_notes(job, capabilities), *notes),
        )
    run.report(JobProgress("done", record.tiles, record.tiles))
    return Result(output, record)


class _Run:
    """The state of one job while it runs."""

    def __init__(self, job: Job, pool: Pool, report: Callable[[JobProgress], None], cancel: threading.Event) -> None:
        self.job = job
        self.pool = pool
        self.report = report
        self.cancel = cancel
        self.stages = Stages(trace=job.trace)

    def opened(self, source: Source) -> Picture:
        """Decode the source."""
        self.report(JobProgress("decode"))
        with self.stages.measure("decode"):
            return open_source(source)

    def ready(self) -> Capabilities:
        """Wait for a worker that holds the model."""
        self.report(JobProgress("start"))
        with self.stages.measure("start"):
            return self.pool.ready(READY_TIMEOUT_S)

    def enlarge(
        self, picture: Picture, source: Source, target: Target, capabilities: Capabilities
    ) -> tuple[Any, TilePlan, tuple[str, ...]]:
        """Try with ever smaller batches and tiles until the device's memory suffices."""
        check_target(target, self._target_spec(picture, Channels(picture, capabilities.scale), capabilities.scale))
        sizes = Sizes(self.job, capabilities.device_name or capabilities.device)
        tile, batch = sizes.start(picture)
        while True:
            self._stop_if_cancelled()
            try:
                output, plan, notes = self._attempt(picture, source, target, capabilities, tile, batch)
            except OutOfMemoryError as error:
                tile, batch = sizes.smaller(error, capabilities)
                continue
            except MemoryError as error:
                width, height = picture.width * capabilities.scale, picture.height * capabilities.scale
                raise PictureTooLargeError(
                    f"{width} x {height} pixels do not fit into this machine's memory",
                    hint="write a PNG or JPEG file, of which a few rows are held at a time, or cut it into parts",
                ) from error
            sizes.remember()
            return output, plan, notes

    def _target_spec(self, picture: Picture, channels: Channels, scale: int) -> TargetSpec:
        options = self.job.options
        return TargetSpec(
            width=picture.width * scale,
            height=picture.height * scale,
            mode=channels.mode,
            format=options.format,
            quality=options.quality,
            on_exists=options.on_exists,
            icc=picture.icc,
            exif=picture.exif,
        )

    def _attempt(
        self,
        picture: Picture,
        source: Source,
        target: Target,
        capabilities: Capabilities,
        tile: int | None,
        batch: int,
    ) -> tuple[Any, TilePlan, tuple[str, ...]]:
        tiling, options, scale = self.job.route.backend.tiling, self.job.options, capabilities.scale
        plan = plan_tiles(
            picture.height,
            picture.width,
            tile=tile,
            overlap=tiling.overlap if options.overlap is None else options.overlap,
            size=capabilities.size,
            align=self.job.route.align,
            minimum_tile=tiling.minimum_tile,
            shrink=not options.tile,
        )
        channels = Channels(picture, scale)
        sink = open_target(
            target,
            self._target_spec(picture, channels, scale),
            picture,
            form="array" if isinstance(source, np.ndarray) else "pillow",
        )
        blended = tiling.stitch == "feather" and len(plan.boxes) > 1
        out_dtype = "float32" if blended else channels.dtype
        # What is blended and then gets its colours back is rounded once, after both.
        stitched = np.dtype(out_dtype if self._colour_fix else channels.dtype)
        stitcher = Stitcher(plan, scale, 3, stitched, tiling.stitch)
        try:
            with self._finish(picture, channels, sink, stitched) as finish:
                self._tiles(plan, channels, stitcher, finish, out_dtype=out_dtype, batch=batch)
                stitcher.finish()
            with self.stages.measure("encode"):
                return sink.close(), plan, (*sink.warnings, *cutting_notes(plan, self.job.route.align))
        except BaseException:
            self.pool.cancel(self.job.number)
            sink.abort()
            raise

    @contextmanager
    def _finish(
        self, picture: Picture, channels: Channels, sink: OpenTarget, stitched: np.dtype[Any]
    ) -> Generator[Finish]:
        """What is done with stitched bands: written, or, for a colour fix, spooled and written at the end."""
        colour = self._colour_fix
        if colour is None:
            yield lambda top, band: self._write(top, band, channels, sink)
            return
        with Recolour(self.job.colour_fix, colour, picture, channels, self.job.scratch, stitched) as recolour:
            yield recolour.take
            for top, band in recolour.bands():
                self._stop_if_cancelled()
                self._write(top, band, channels, sink)

    @property
    def _colour_fix(self) -> ColourSpec | None:
        """How the picture gets its colours back; None where it keeps its own."""
        return None if self.job.colour_fix == "none" else self.job.route.backend.colour

    def _write(self, top: int, band: Array, channels: Channels, sink: OpenTarget) -> None:
        with self.stages.measure("stitch"):
            rows = channels.finish(top, band)
        with self.stages.measure("encode"):
            sink.write(rows)

    def _tiles(
        self, plan: TilePlan, channels: Channels, stitcher: Stitcher, finish: Finish, *, out_dtype: str, batch: int
    ) -> None:
        """Keep the pool fed, and stitch and encode what comes back."""
        answers: queue.SimpleQueue[tuple[int, Future[TileAnswer]]] = queue.SimpleQueue()
        groups = batches(plan, batch)
        total, done, flying = len(plan.boxes), 0, 0
        self.report(JobProgress("inference", 0, total))
        while done < total:
            while flying < max(self.pool.capacity, 1) * batch and (group := next(groups, None)) is not None:
                for index, future in zip(group, self._send(group, plan, channels, out_dtype), strict=True):
                    future.add_done_callback(lambda future, index=index: answers.put((index, future)))
                flying += len(group)
            self._take(*self._next(answers), plan, channels, stitcher, finish)
            flying -= 1
            done += 1
            self.report(JobProgress("inference" if done < total else "encode", done, total))

    def _take(
        self,
        index: int,
        future: Future[TileAnswer],
        plan: TilePlan,
        channels: Channels,
        stitcher: Stitcher,
        finish: Finish,
    ) -> None:
        """Stitch one answer and encode the rows that it completes.

        A call of its own, so that nothing of a band outlives it: the next row of tiles fills another as large.
        """
        answer = future.result()
        self.stages.seconds["inference"] += answer.seconds
        with self.stages.measure("stitch", (index,)):
            bands = stitcher.add(index, unpad(answer.array, plan.boxes[index], channels.scale))
        answer.release()
        for top, band in bands:
            finish(top, band)

    def _send(
        self, group: Sequence[int], plan: TilePlan, channels: Channels, out_dtype: str
    ) -> Sequence[Future[TileAnswer]]:
        with self.stages.measure("tile", group):
            tiles = [np.ascontiguousarray(pad_tile(channels.tile(plan.boxes[index]), plan)) for index in group]
        seed = self.job.options.seed
        # Always one each: tiles that all drew the same noise would show it as a pattern.
        seeds = [tile_seed(DEFAULT_SEED if seed is None else seed, index) for index in group]
        job = self.job
        traces = job.trace.tiles(group) if job.trace is not None else ()
        return self.pool.submit(
            tiles, out_dtype=out_dtype, seeds=seeds, params=job.params, job=job.number, traces=traces
        )

    def _next(self, answers: queue.SimpleQueue[tuple[int, Future[TileAnswer]]]) -> tuple[int, Future[TileAnswer]]:
        with self.stages.measure("wait"):
            while True:
                self._stop_if_cancelled()
                try:
                    return answers.get(timeout=POLL_S)
                except queue.Empty:
                    continue

    def _stop_if_cancelled(self) -> None:
        if self.cancel.is_set():
            raise CancelledError("cancelled", hint="nothing was written; run it again")


def open_source(source: Source) -> Picture:
    """Decode whatever a picture may come as; InputError and its subclasses."""
    if isinstance(source, Path):
        return open_picture(source)
    if isinstance(source, bytes):
        return open_picture(source)
    if isinstance(source, np.ndarray):
        return from_array(source)
    if type(source).__module__.partition(".")[0] == "PIL":
        return from_pil(source)
    raise UnsupportedPictureError(
        f"a {type(source).__name__} is no picture", hint="give a path, a Pillow picture or a numpy array"
    )
