import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upx.errors import ModelError
from upx.specs import SizeRequirements
from upx.stitching import Stitcher, as_dtype, feather_weights
from upx.tiling import plan_tiles


def picture(height, width, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    return rng.random((height, width, 3), np.float32)


def enlarged(array, scale):
    return array.repeat(scale, 0).repeat(scale, 1)


def tile_of(array, box, scale):
    return enlarged(array[box.top : box.bottom, box.left : box.right], scale)


def stitched(plan, source, *, scale, mode, dtype, order):
    stitcher = Stitcher(plan, scale, 3, dtype, mode)
    bands = [band for index in order for band in stitcher.add(index, tile_of(source, plan.boxes[index], scale))]
    stitcher.finish()
    row = 0
    for top, rows in bands:
        assert top == row
        row += len(rows)
    return np.concatenate([rows for _, rows in bands])


@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(0, 10), st.integers(1, 3),
    st.sampled_from(["crop", "feather"]), st.sampled_from([1, 8]), st.integers(0, 99),
)  # fmt: skip
def test_stitching_identity_gives_identity_in_any_order_of_arrival(height, width, overlap, scale, mode, align, seed):
    plan = plan_tiles(height, width, tile=40, overlap=overlap, size=SizeRequirements(), align=align, minimum_tile=8)
    order = list(range(len(plan.boxes)))
    random.Random(seed).shuffle(order)
    source = picture(height, width, np.uint8, seed)
    result = stitched(plan, source, scale=scale, mode=mode, dtype=np.uint8, order=order)
    np.testing.assert_array_equal(result, enlarged(source, scale))


@pytest.mark.parametrize("mode", ["crop", "feather"])
def test_float_tiles_come_back_as_float_and_as_levels(mode):
    plan = plan_tiles(130, 90, tile=48, overlap=8, size=SizeRequirements())
    source = picture(130, 90, np.float32)
    order = range(len(plan.boxes))
    as_float = stitched(plan, source, scale=2, mode=mode, dtype=np.float32, order=order)
    np.testing.assert_allclose(as_float, enlarged(source, 2), atol=2e-7, rtol=0)
    as_levels = stitched(plan, source, scale=2, mode=mode, dtype=np.uint8, order=order)
    np.testing.assert_array_equal(as_levels, np.rint(enlarged(source, 2) * 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["crop", "feather"])
def test_tiles_that_disagree_give_the_same_bytes_in_every_order(mode):
    plan = plan_tiles(120, 120, tile=44, overlap=12, size=SizeRequirements(), shrink=False)
    tiles = [picture(box.height, box.width, np.float32, seed) for seed, box in enumerate(plan.boxes)]
    results = []
    for seed in range(4):
        order = list(range(len(tiles)))
        random.Random(seed).shuffle(order)
        stitcher = Stitcher(plan, 1, 3, np.float32, mode)
        bands = [band for index in order for band in stitcher.add(index, tiles[index])]
        results.append(np.concatenate([rows for _, rows in bands]).tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("spans", [[(0, 40), (24, 64)], [(0, 40), (16, 56), (20, 60)], [(0, 9)], [(0, 8), (8, 16)]])
def test_feather_weights_sum_to_one_everywhere(spans):
    sums = np.zeros(spans[-1][1] * 3)
    for (start, end), weight in zip(spans, feather_weights(spans, 3), strict=True):
        assert weight.min() > 0
        sums[start * 3 : end * 3] += weight
    np.testing.assert_allclose(sums, 1, atol=2e-7, rtol=0)


def test_a_feathered_seam_is_smooth_where_a_cropped_one_steps():
    plan = plan_tiles(64, 120, tile=64, overlap=8, size=SizeRequirements(), shrink=False)
    tiles = [np.full((64, 64, 3), level, np.float32) for level in (0.0, 0.0, 1.0)]
    largest = {}
    for mode in ("crop", "feather"):
        stitcher = Stitcher(plan, 1, 3, np.float32, mode)
        bands = [band for index, tile in enumerate(tiles) for band in stitcher.add(index, tile)]
        largest[mode] = np.abs(np.diff(bands[0][1][0, :, 0])).max()
    assert largest["crop"] == 1
    assert largest["feather"] < 0.1


def test_a_band_leaves_as_soon_as_its_row_of_tiles_is_complete():
    plan = plan_tiles(200, 200, tile=64, overlap=8, size=SizeRequirements())
    stitcher = Stitcher(plan, 2, 3, np.uint8, "crop")
    source = picture(200, 200, np.uint8)
    first_row = [len(stitcher.add(index, tile_of(source, plan.boxes[index], 2))) for index in range(plan.columns)]
    assert first_row == [0] * (plan.columns - 1) + [1]


def test_a_single_tile_passes_through_untouched():
    plan = plan_tiles(30, 20, tile=None, overlap=8, size=SizeRequirements())
    out = picture(60, 40, np.uint8)
    ((top, band),) = Stitcher(plan, 2, 3, np.uint8, "none").add(0, out)
    assert top == 0
    assert band is out


def test_a_finish_without_every_tile_says_which_is_missing():
    plan = plan_tiles(100, 100, tile=64, overlap=8, size=SizeRequirements())
    stitcher = Stitcher(plan, 1, 3, np.uint8, "crop")
    stitcher.add(0, np.zeros((plan.tile_height, plan.tile_width, 3), np.uint8))
    with pytest.raises(ValueError, match="3 tiles are missing, the first is 1"):
        stitcher.finish()


def test_a_tile_that_comes_twice_is_an_error():
    plan = plan_tiles(100, 100, tile=64, overlap=8, size=SizeRequirements())
    tile = np.zeros((plan.tile_height, plan.tile_width, 3), np.uint8)
    stitcher = Stitcher(plan, 1, 3, np.uint8, "crop")
    stitcher.add(0, tile)
    with pytest.raises(ValueError, match="twice"):
        stitcher.add(0, tile)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_not_a_number_is_named_and_not_written(value):
    plan = plan_tiles(10, 10, tile=None, overlap=0, size=SizeRequirements())
    tile = np.zeros((10, 10, 3), np.float32)
    tile[3, 4, 1] = value
    with pytest.raises(ModelError, match="not numbers") as caught:
        Stitcher(plan, 1, 3, np.uint8, "crop").add(0, tile)
    assert "--precision fp32" in caught.value.hint


def test_an_answer_of_another_shape_or_dtype_is_the_models_error():
    plan = plan_tiles(10, 10, tile=None, overlap=0, size=SizeRequirements())
    with pytest.raises(ModelError, match=r"\(10, 10, 3\) instead of \(20, 20, 3\)"):
        Stitcher(plan, 2, 3, np.uint8, "crop").add(0, np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ModelError, match="float64"):
        Stitcher(plan, 1, 3, np.uint8, "crop").add(0, np.zeros((10, 10, 3)))


def test_native_mode_takes_one_tile_only():
    plan = plan_tiles(100, 100, tile=64, overlap=8, size=SizeRequirements())
    with pytest.raises(ValueError, match="one tile"):
        Stitcher(plan, 1, 3, np.uint8, "none")


def test_levels_are_rounded_half_to_even_and_clipped():
    halves = np.array([0.5, 1.5, 2.5, -3, 300], np.float32) / np.float32(255)
    np.testing.assert_array_equal(as_dtype(halves, np.dtype(np.uint8)), [0, 2, 2, 0, 255])
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(as_dtype(as_dtype(every, np.dtype(np.float32)), np.dtype(np.uint8)), every)
