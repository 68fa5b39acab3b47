"""What a conversation has to do with packed tiles: whether the worker knows them, and how quick the codec is here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from upx_protocol.arrays import PACKED_DTYPES, PACKS
from upx_protocol.packing import PACKING, opened, pack, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from upx_protocol.arrays import Bytes
    from upx_protocol.messages import Buffer
    from upx_protocol.packing import Piece

# Of a result, so much is packed to see how quick that is, and every so many results: milliseconds each.
SIDE, EVERY = 256, 50


class Parcels:
    """``wanted``: whether the link may be slow enough for them."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._able = False
        self._rate = 0.0
        self._results = 0

    @property
    def features(self) -> tuple[str, ...]:
        """What ``Hello`` asks for."""
        return (PACKING,) if self._wanted else ()

    def begin(self, features: Sequence[str]) -> None:
        """A session has begun with these."""
        self._able = self._wanted and PACKING in features

    def wrap(self, arrays: Sequence[NDArray[Any]], *, wanted: bool) -> tuple[Sequence[Piece], str]:
        """Tiles (H, W, 3) as they travel, and the codec that their results should come in."""
        if not (wanted and self._able):
            return arrays, "raw"
        return [packed(array) for array in arrays], PACKS

    def rate(self, buffer: Buffer, part: Bytes) -> float:
        """Bytes a second at which results like this one are packed; 0 where they are not, or get no smaller."""
        if not self._able or buffer.dtype not in PACKED_DTYPES:
            return 0.0
        if self._results % EVERY == 0 and buffer.codec != PACKS:
            self._rate = _measured(opened(buffer, part)[:SIDE, :SIDE])
        self._results += 1
        return self._rate


def _measured(tile: NDArray[Any]) -> float:
    began = time.perf_counter()
    return tile.nbytes / (time.perf_counter() - began) if pack(tile) is not None else 0.0
