"""What a backend implements: load weights, turn tiles into tiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, Tuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_protocol.messages import Scalar


def ignore_progress(_stage: str, _done: float, _total: float) -> None:
    """A load's reports go nowhere."""


@dataclass(frozen=True)
class LoadRequest:
    """What to make resident. ``files``: role to path; ``threads`` 0 lets the backend choose."""

    model: str
    files: Mapping[str, str]
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 0
    params: Mapping[str, Scalar] = field(default_factory=dict[str, "Scalar"])
    #: Reports (stage, done, total); may be called as often as is convenient.
    progress: Callable[[str, float, float], None] = ignore_progress


@dataclass(frozen=True)
class LoadResult:
    """What is resident. Sizes in input pixels, with spandrel's meaning.

    ``dtypes``: what ``upscale`` takes as it comes, of uint8, uint16, float16, float32; a tile in another dtype is
    converted to float32 0..1 before. ``rounding``: how float results become integers, "half_even" or "truncate".
    """

    scale: int
    minimum: int = 1
    multiple_of: int = 1
    square: bool = False
    fixed: int = 0
    device: str = "cpu"
    device_name: str = ""
    precision: str = "fp32"
    dtypes: Tuple[str, ...] = ("float32",)
    rounding: str = "half_even"


@dataclass(frozen=True)
class DeviceInfo:
    """The device that this worker would use; memory in bytes, 0 where unknown."""

    device: str = "cpu"
    device_name: str = ""
    memory_total: int = 0
    memory_free: int = 0
    precisions: Tuple[str, ...] = ("fp32",)


@dataclass(frozen=True)
class Batch:
    """Tiles of one shape and dtype: each (H, W, 3) RGB, read-only. ``seeds``: one per tile, or empty.

    A tile holds until ``upscale`` returns; then its memory may be another's.
    """

    tiles: Sequence[NDArray[Any]]
    seeds: Tuple[int, ...] = ()
    params: Mapping[str, Scalar] = field(default_factory=dict[str, "Scalar"])


class Upscaler:
    """Base of every backend's adapter; ``worker.py`` of a backend holds one subclass named ``Backend``.

    The constructor must do nothing heavy. All methods are called from one thread.
    """

    def device(self, wanted: str) -> DeviceInfo:
        """The device that ``wanted`` ("cpu", "cuda", "cuda:1", "mps") stands for here."""
        return DeviceInfo(device=wanted)

    def load(self, request: LoadRequest) -> LoadResult:
        """Make a model resident, replacing the one before.

        Raises an ``UpscalerError``: ``BadInputError`` for weights or parameters that do not fit,
        ``OutOfMemoryError`` when the device is too small.
        """
        raise NotImplementedError

    def upscale(self, batch: Batch) -> Sequence[NDArray[Any]]:
        """One result per tile, in order: (H * scale, W * scale, 3), float32 0..1 or the tile's integer dtype."""
        raise NotImplementedError

    def unload(self) -> None:
        """Give the model's memory back."""
