"""What a job is made of: its facts, the workers as it sees them, and the clock of its stages."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from upx.jobs import JobOptions
    from upx.routes import Route
    from upx.specs import Capabilities, ParameterValue
    from upx.trace import PictureTrace, TileTrace

Array: TypeAlias = "NDArray[Any]"
Source: TypeAlias = "Path | bytes | Image.Image | NDArray[Any]"


class TileAnswer(Protocol):
    """What a pool gives back for a tile: ``array`` (h * scale, w * scale, 3), ``seconds`` of computing."""

    @property
    def array(self) -> Array:
        """The pixels."""
        ...

    @property
    def seconds(self) -> float:
        """Compute time."""
        ...

    def release(self) -> None:
        """Let go of the pixels, which may lie in memory that workers need."""
        ...


class Pool(Protocol):
    """The workers as a job sees them."""

    @property
    def capacity(self) -> int:
        """Batches worth keeping in flight."""
        ...

    @property
    def io_seconds(self) -> float:
        """CPU seconds that sending and receiving took so far."""
        ...

    def ready(self, timeout: float) -> Capabilities:
        """Wait for the first worker with the model."""
        ...

    def submit(
        self,
        tiles: Sequence[Array],
        *,
        out_dtype: str,
        seeds: Sequence[int] = (),
        params: Mapping[str, ParameterValue] = {},
        job: int,
        traces: Sequence[TileTrace] = (),
    ) -> Sequence[Future[Any]]:
        """Queue a batch of tiles of one shape."""
        ...

    def cancel(self, job: int) -> None:
        """Drop what a job has in flight."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a session knows of a job.

    ``params`` are what workers are told, ``given`` what the user set; ``colour_fix``: the method that is applied after
    stitching, "none" for no method; ``memory``: the file of learnt tiles; ``scratch``: a folder for spooled pictures;
    ``precision``: what was asked for, "auto" for any; ``trace``: where it is recorded, if it is.
    """

    number: int
    route: Route
    model_sha256: str
    params: Mapping[str, ParameterValue]
    given: Mapping[str, ParameterValue]
    options: JobOptions
    memory: Path
    scratch: Path
    colour_fix: str = "none"
    precision: str = "auto"
    trace: PictureTrace | None = None


@dataclass
class Stages:
    """Seconds spent per stage.

    ``inference`` is the sum over the workers, ``transport`` the CPU time of the pool's I/O thread (of all jobs that
    run at the same time), the others are this thread's; ``wait`` is when it had nothing to do.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    trace: PictureTrace | None = None

    @contextmanager
    def measure(self, stage: str, tiles: Sequence[int] = ()) -> Generator[None]:
        """Add the time of the block to ``stage``; ``tiles`` is what it was for, where it was for some."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            self.seconds[stage] += end - start
            if self.trace is not None:
                self.trace.stage(stage, start, end, tiles)


def peak_memory() -> int:
    """Peak resident set of this process, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
