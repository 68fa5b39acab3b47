"""Tiles made smaller for a slow wire, without loss: each pixel less its neighbours, then deflate.

What a network enlarged is smooth: 2.5 to 4 times fewer bytes at about 50 MB/s of one core, so that it pays where a link
carries less than that. Floats hardly get smaller and are never packed.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Sequence, Union, cast

import numpy as np

from upx_protocol.arrays import PACKED_DTYPES, PACKS, dtype_name, view
from upx_protocol.errors import MalformedError
from upx_protocol.fields import Buffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_protocol.arrays import Bytes

#: The feature's name in ``Hello`` and ``Welcome``.
PACKING = "packing"
#: A packed tile may say of itself that it is large, and costs its sender nothing: the most bytes that one unfolds to.
MOST_BYTES = 256 << 20
# The quickest: the next ones take twice the time for a tenth of the bytes.
LEVEL = 1


@dataclass(frozen=True)
class Packed:
    """A tile as it travels: what it is, and its bytes."""

    buffer: Buffer
    part: bytes

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return len(self.part)


#: What follows a header: an array as it is, or packed.
Piece = Union["NDArray[Any]", Packed]


def packed(tile: NDArray[Any]) -> Piece:
    """The tile, (H, W, C), packed where that makes it smaller, else as it is."""
    part = pack(tile)
    if part is None:
        return tile
    return Packed(Buffer(dtype_name(tile), tuple(tile.shape), tile.nbytes, codec=PACKS), part)


def opened(buffer: Buffer, part: Bytes) -> NDArray[Any]:
    """A tile that came, (H, W, C), read-only; MalformedError for one that does not unfold."""
    if buffer.codec != PACKS:
        return view(buffer, part)
    tile = unpack(part, buffer.shape, buffer.dtype)
    tile.flags.writeable = False
    return tile


def pack(tile: NDArray[Any]) -> Optional[bytes]:
    """The bytes of a tile (H, W, C), packed; None where that is not smaller, or no dtype of ``PACKED_DTYPES``."""
    if tile.dtype.name not in PACKED_DTYPES:
        return None
    less = tile.astype(tile.dtype.newbyteorder("<"), copy=True)
    less[:, 1:] -= tile[:, :-1]
    less[1:] -= less[:-1].copy()
    packed = zlib.compress(cast("bytes", _planes(less)), LEVEL)
    return packed if len(packed) < tile.nbytes else None


def unpack(part: Bytes, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """A tile again, (H, W, C), C order; MalformedError for what is none of that shape, or would be more."""
    made = np.dtype(dtype).newbyteorder("<")
    size = math.prod(shape) * made.itemsize
    if size > MOST_BYTES:
        raise MalformedError(f"a packed tile of {size} bytes, at most {MOST_BYTES}")
    inflater = zlib.decompressobj()
    try:
        # One byte more would show that there is more; no bomb gets further.
        content = inflater.decompress(cast("bytes", part), size + 1)
    except zlib.error as error:
        raise MalformedError(f"a packed tile: {error}") from error
    if len(content) != size or not inflater.eof or inflater.unused_data:
        raise MalformedError("a packed tile of another size")
    less = _from_planes(content, shape, made)
    # Row by row: numpy's own sum down the columns takes thirty times as long.
    for row in range(1, len(less)):
        np.add(less[row], less[row - 1], out=less[row])
    np.add.accumulate(less, axis=1, out=less)
    return less


def _planes(less: NDArray[Any]) -> NDArray[np.uint8]:
    """The low bytes first, then the high ones, which are mostly zeros."""
    flat = np.ascontiguousarray(less).reshape(-1).view(np.uint8)
    return flat if less.itemsize == 1 else np.ascontiguousarray(flat.reshape(-1, less.itemsize).T).reshape(-1)


def _from_planes(content: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    flat = np.frombuffer(content, np.uint8)
    whole = flat.copy() if dtype.itemsize == 1 else np.ascontiguousarray(flat.reshape(dtype.itemsize, -1).T)
    return whole.reshape(-1).view(dtype).reshape(tuple(shape))
