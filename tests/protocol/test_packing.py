"""Packed tiles come back whole, and nothing else is taken for one."""

from __future__ import annotations

import sys
import time
import tracemalloc
import types
import zlib
from typing import Any

import numpy as np
import pytest

from upx_protocol import compute
from upx_protocol.actions import BatchEnded, BatchTask, LoadTask
from upx_protocol.arrays import PACKS, as_buffer, describe
from upx_protocol.errors import MalformedError
from upx_protocol.messages import Load, Upscale
from upx_protocol.packing import PACKED_DTYPES, Packed, pack, packed, unpack
from upx_protocol.sessions import Ticket
from upx_protocol.upscaler import Batch, LoadRequest, LoadResult, Upscaler


def smooth(height: int, width: int, dtype: str) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = 0.5 + 0.4 * np.sin(x[..., None] / 40 + np.arange(3)) * np.cos(y[..., None] / 30)
    return (waves * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", PACKED_DTYPES)
@pytest.mark.parametrize("shape", [(256, 256), (128, 33), (33, 128), (64, 1), (1, 64)])
def test_a_smooth_tile_is_smaller_and_comes_back_whole(dtype: str, shape: tuple[int, int]) -> None:
    tile = smooth(*shape, dtype)
    part = pack(tile)
    if min(shape) > 1:
        assert part is not None
        assert len(part) < tile.nbytes / (2 if dtype == "uint8" else 1.5)
    if part is not None:
        back = unpack(part, tile.shape, dtype)
        assert back.dtype == tile.dtype
        assert np.array_equal(back, tile)


@pytest.mark.parametrize("dtype", PACKED_DTYPES)
def test_every_value_wraps_around_and_back(dtype: str) -> None:
    ends = np.array([0, 1, np.iinfo(dtype).max, np.iinfo(dtype).max // 2], dtype)
    tile = np.random.default_rng(3).choice(ends, (64, 64, 3)).astype(dtype)
    part = pack(tile)
    assert part is not None
    assert np.array_equal(unpack(part, tile.shape, dtype), tile)


def test_a_view_that_is_not_whole_memory_is_packed_as_what_it_shows() -> None:
    tile = smooth(128, 128, "uint8")[::2, 5:90]
    part = pack(tile)
    assert part is not None
    assert np.array_equal(unpack(part, tile.shape, "uint8"), tile)


def test_noise_and_floats_are_not_packed() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    assert pack(noise) is None
    assert pack(noise.astype(np.float32) / 255) is None


def test_the_tile_itself_is_left_as_it_was() -> None:
    tile = smooth(64, 64, "uint8")
    before = tile.copy()
    pack(tile)
    assert np.array_equal(tile, before)


def bent(part: bytes) -> list[bytes]:
    return [b"", part[:-1], part + b"x", b"x" + part, part[: len(part) // 2], zlib.compress(b"short")]


@pytest.mark.parametrize("number", range(6))
def test_what_is_cut_short_or_longer_is_no_tile(number: int) -> None:
    tile = smooth(64, 64, "uint8")
    part = pack(tile)
    assert part is not None
    with pytest.raises(MalformedError):
        unpack(bent(part)[number], tile.shape, "uint8")


def test_a_bomb_is_refused_before_it_has_unfolded() -> None:
    bomb = zlib.compress(bytes(256 << 20), 9)
    tracemalloc.start()
    with pytest.raises(MalformedError):
        unpack(bomb, (64, 64, 3), "uint8")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 << 20


class Echoing(Upscaler):
    """A backend that gives back what it gets."""

    def load(self, _request: LoadRequest) -> LoadResult:
        return LoadResult(scale=1, dtypes=("uint8",))

    def upscale(self, batch: Batch) -> list[Any]:
        return list(batch.tiles)


def test_packing_is_no_part_of_the_time_that_computing_took(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("echoing")
    vars(module)["Backend"] = Echoing
    monkeypatch.setitem(sys.modules, "echoing", module)

    def slowly(tile: Any) -> Any:
        time.sleep(0.3)
        return packed(tile)

    monkeypatch.setattr(compute, "packed", slowly)
    tile = smooth(64, 64, "uint8")
    request = Upscale(1, 0, "load", (describe(tile),), codec=PACKS)
    tasks = iter([LoadTask(Load(1, "key", "any"), "load"), BatchTask(Ticket("s", request, (as_buffer(tile),))), None])
    outcomes: list[Any] = []
    compute.Compute("echoing", "cpu", lambda: next(tasks)).run(outcomes.append)
    ended = outcomes[-1]
    assert isinstance(ended, BatchEnded)
    (result,) = ended.results
    assert isinstance(result, Packed)
    assert 0 < ended.seconds < 0.3
