"""Arrays on the wire: how they are described, viewed and rounded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Sequence, Union, cast

import numpy as np

from upx_protocol.errors import MalformedError
from upx_protocol.fields import Buffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bytes = Union[bytes, bytearray, memoryview]

#: What a tile may be made of, and how many bytes each item takes. Little endian.
ITEM_SIZES = {"uint8": 1, "uint16": 2, "float16": 2, "float32": 4}
MAX_DIMENSIONS = 4
TILE_DIMENSIONS, CHANNELS = 3, 3


def describe(array: NDArray[Any]) -> Buffer:
    """The description of a C-ordered array that travels inline."""
    return Buffer(dtype=array.dtype.name, shape=tuple(array.shape), nbytes=array.nbytes)


def as_buffer(array: NDArray[Any]) -> memoryview:
    """The array's memory as flat bytes, without a copy; TypeError when it is not C-contiguous."""
    return memoryview(cast("bytes", array)).cast("B")


def check_buffer(buffer: Buffer) -> None:
    """MalformedError when a description contradicts itself."""
    size = ITEM_SIZES.get(buffer.dtype)
    if size is None:
        raise MalformedError(f"dtype {buffer.dtype[:32]!r}")
    if not 1 <= len(buffer.shape) <= MAX_DIMENSIONS or min(buffer.shape) < 1:
        raise MalformedError("shape of a buffer")
    if math.prod(buffer.shape) * size != buffer.nbytes:
        raise MalformedError("nbytes contradicts shape and dtype")
    if buffer.loc not in ("inline", "shm") or buffer.codec != "raw":
        raise MalformedError("location or codec of a buffer")


def check_tiles(buffers: Sequence[Buffer]) -> None:
    """MalformedError unless these are tiles of one dtype and one shape (H, W, 3)."""
    if not buffers:
        raise MalformedError("no buffers")
    first = buffers[0]
    if len(first.shape) != TILE_DIMENSIONS or first.shape[2] != CHANNELS:
        raise MalformedError("a tile is (H, W, 3)")
    if any(other.shape != first.shape or other.dtype != first.dtype for other in buffers):
        raise MalformedError("tiles of different shapes or dtypes")


def view(buffer: Buffer, part: Bytes) -> NDArray[Any]:
    """A read-only view of one inline buffer as (H, W, C), without a copy."""
    array = np.frombuffer(part, dtype=np.dtype(buffer.dtype).newbyteorder("<")).reshape(buffer.shape)
    array.flags.writeable = False
    return array


def to_float(tile: NDArray[Any]) -> NDArray[np.float32]:
    """Any wire dtype to float32 0..1; integers are divided by their largest value."""
    if tile.dtype == np.uint8:
        return tile.astype(np.float32) * np.float32(1 / 255)
    if tile.dtype == np.uint16:
        return tile.astype(np.float32) * np.float32(1 / 65535)
    return tile.astype(np.float32, copy=False)


def to_dtype(tile: NDArray[np.float32], dtype: str, *, rounding: str = "half_even") -> NDArray[Any]:
    """Float32 0..1 to the dtype asked for. Integers are clamped and rounded; floats are passed unclamped.

    ``rounding``: "half_even" or "truncate", as the model's official code does it.
    """
    if dtype in ("float32", "float16"):
        return np.ascontiguousarray(tile, dtype=dtype)
    top = 255 if dtype == "uint8" else 65535
    scaled = tile * np.float32(top)
    if rounding == "half_even":
        np.rint(scaled, out=scaled)
    np.clip(scaled, 0, top, out=scaled)
    return np.ascontiguousarray(scaled.astype(dtype))
