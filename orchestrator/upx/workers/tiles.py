"""The tiles that wait for an answer: their arrays, their futures, and which of them travel together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from upx_protocol.errors import MalformedError
from upx_protocol.packing import opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from upx.trace import TileTrace
    from upx_protocol.arrays import Bytes
    from upx_protocol.messages import Buffer, Scalar


NOTHING = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Answer:
    """One tile's result as it came: its description, its memory, its share of compute time in seconds."""

    buffer: Buffer
    part: Bytes
    seconds: float
    worker: str
    scale: int


@dataclass(slots=True)
class TileResult:
    """One enlarged tile: a read-only view (H * scale, W * scale, 3) of what came; compute seconds; who did it.

    The array may lie in memory that is shared with the worker, which has little of it: ``release`` what was read.
    """

    array: NDArray[Any]
    seconds: float
    worker: str

    def release(self) -> None:
        """Let go of the array. Its memory is used again once nobody holds a view of it, and not before."""
        self.array = NOTHING


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a batch. ``array``: (H, W, 3), C order; ``name`` is what people call it.

    ``open``: the tiles of its batch without an answer, shared by them. All arrays are kept until it is empty, since
    a batch that is sent again keeps its composition. ``trace``: where it is recorded, if it is.
    """

    array: NDArray[Any]
    future: Future[TileResult]
    out_dtype: str
    seed: int | None
    params: dict[str, Scalar]
    name: str
    batch: tuple[int, ...]
    open: set[int]
    trace: TileTrace | None = None

    def result(self, answer: Answer) -> TileResult:
        """What an answer to it brings; MalformedError for another shape or dtype, or what does not unfold."""
        height, width = self.array.shape[:2]
        shape, buffer = (height * answer.scale, width * answer.scale, 3), answer.buffer
        if buffer.shape != shape or buffer.dtype != self.out_dtype:
            raise MalformedError(f"{buffer.dtype} {buffer.shape} came, {self.out_dtype} {shape} was asked for")
        return TileResult(opened(buffer, answer.part), answer.seconds, answer.worker)


@dataclass(frozen=True, slots=True)
class Request:
    """What a batch is sent with. ``arrays``: one (H, W, 3) per tile."""

    arrays: Sequence[NDArray[Any]]
    out_dtype: str
    seeds: tuple[int, ...]
    params: dict[str, Scalar]


class Tiles:
    """All tiles of a pool, by number."""

    def __init__(self) -> None:
        self._tiles: dict[int, Tile] = {}

    def add(self, tiles: Mapping[int, Tile]) -> None:
        """Take tiles on."""
        self._tiles.update(tiles)

    def of(self, numbers: Iterable[int]) -> list[Tile]:
        """The tiles of a batch, in its order, with those that were answered already."""
        return [self._tiles[number] for number in numbers if number in self._tiles]

    def take(self, number: int) -> Tile | None:
        """A tile that gets its answer now, None if it had one; its array stays while its batch may be sent again."""
        tile = self._tiles.get(number)
        if tile is None or number not in tile.open:
            return None
        tile.open.discard(number)
        if not tile.open:
            for done in tile.batch:
                self._tiles.pop(done, None)
        return tile

    def take_all(self) -> Iterator[Tile]:
        """Every tile without an answer."""
        for number in list(self._tiles):
            tile = self.take(number)
            if tile is not None:
                yield tile
