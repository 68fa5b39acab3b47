import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from upx.errors import ParameterError
from upx.specs import SizeRequirements
from upx.tiling import Box, pad_tile, padded_size, plan_tiles, smallest_tile, unpad

ANY = SizeRequirements()

sizes = st.builds(
    SizeRequirements,
    minimum=st.integers(1, 80),
    multiple_of=st.sampled_from([1, 2, 4, 8, 16, 64]),
    square=st.booleans(),
    fixed=st.sampled_from([0, 0, 0, 128]),
)


@st.composite
def plans(draw):
    size, overlap = draw(sizes), draw(st.integers(0, 40))
    align = draw(st.sampled_from([1, 1, 8, 24]))
    least = smallest_tile(overlap=overlap, size=size)
    assume(not size.fixed or least <= size.fixed)
    tile = draw(st.integers(least, least + 200))
    height, width = draw(st.integers(1, 900)), draw(st.integers(1, 900))
    return plan_tiles(height, width, tile=tile, overlap=overlap, size=size, align=align), tile, align


@given(plans())
def test_the_cores_of_a_plan_partition_the_picture(case):
    plan, _, _ = case
    owners = np.zeros((plan.height, plan.width), np.int32)
    for core in plan.cores:
        assert core.height > 0
        assert core.width > 0
        owners[core.top : core.bottom, core.left : core.right] += 1
    assert owners.min() == owners.max() == 1
    assert len(plan.boxes) == len(plan.cores) == plan.rows * plan.columns


@given(plans())
def test_a_core_lies_an_overlap_away_from_every_inner_edge_of_its_tile(case):
    plan, _, _ = case
    for box, core in zip(plan.boxes, plan.cores, strict=True):
        assert box.top == 0 or core.top - box.top >= plan.overlap
        assert box.left == 0 or core.left - box.left >= plan.overlap
        assert box.bottom == plan.height or box.bottom - core.bottom >= plan.overlap
        assert box.right == plan.width or box.right - core.right >= plan.overlap
        assert min(box.top, box.left) >= 0
        assert box.bottom <= plan.height
        assert box.right <= plan.width


@given(plans())
def test_tiles_have_one_shape_unless_they_are_aligned(case):
    plan, tile, align = case
    shapes = {(box.height, box.width) for box in plan.boxes}
    assert max(shapes) == (plan.tile_height, plan.tile_width)
    assert plan.align in {1, align}
    if plan.align == 1:
        assert len(shapes) == 1
    else:
        assert all(box.top % align == 0 and box.left % align == 0 for box in plan.boxes)
    if not plan.size.fixed:
        assert max(plan.tile_height, plan.tile_width) <= tile


@given(plans())
def test_what_the_model_gets_meets_its_size_requirements(case):
    plan, _, _ = case
    for box in plan.boxes:
        height, width = padded_size(box.height, box.width, plan.size)
        assert height >= box.height
        assert width >= box.width
        if plan.size.fixed:
            assert (height, width) == (plan.size.fixed, plan.size.fixed)
            continue
        assert min(height, width) >= plan.size.minimum
        assert height % plan.size.multiple_of == width % plan.size.multiple_of == 0
        assert height == width or not plan.size.square


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 40),
    st.sampled_from([np.uint8, np.float32]),
    st.integers(1, 3),
)
def test_padding_mirrors_and_is_cut_off_again(height, width, minimum, dtype, scale):
    plan = plan_tiles(height, width, tile=None, overlap=4, size=SizeRequirements(minimum=max(minimum, 1)))
    tile = np.arange(height * width * 3).reshape(height, width, 3).astype(dtype)
    padded = pad_tile(tile, plan)
    assert padded.shape[:2] == (plan.padded_height, plan.padded_width)
    rows = [(0, max(height, minimum) - height), (0, max(width, minimum) - width), (0, 0)]
    np.testing.assert_array_equal(padded, np.pad(tile, rows, mode="reflect"))
    out = padded.repeat(scale, 0).repeat(scale, 1)
    np.testing.assert_array_equal(unpad(out, plan.boxes[0], scale), tile.repeat(scale, 0).repeat(scale, 1))


def test_a_tile_that_fits_is_not_copied():
    plan = plan_tiles(64, 64, tile=None, overlap=0, size=SizeRequirements(multiple_of=16))
    tile = np.zeros((64, 64, 3), np.uint8)
    assert pad_tile(tile, plan) is tile


def test_an_automatic_tile_shrinks_to_the_smallest_with_the_same_number_of_tiles():
    automatic = plan_tiles(1000, 1000, tile=256, overlap=8, size=ANY)
    given_by_hand = plan_tiles(1000, 1000, tile=256, overlap=8, size=ANY, shrink=False)
    assert (automatic.rows, automatic.tile_height) == (5, 213)
    assert (given_by_hand.rows, given_by_hand.tile_height) == (5, 256)


def test_a_shrunk_tile_is_still_a_multiple():
    plan = plan_tiles(1000, 700, tile=250, overlap=8, size=SizeRequirements(multiple_of=16))
    assert plan.tile_height % 16 == plan.tile_width % 16 == 0
    assert (plan.padded_height, plan.padded_width) == (plan.tile_height, plan.tile_width)


def test_no_tile_means_the_whole_picture_in_one():
    plan = plan_tiles(300, 5000, tile=None, overlap=24, size=ANY)
    assert plan.boxes == plan.cores == (Box(0, 0, 300, 5000),)


def test_one_pixel_and_a_thread_of_pixels_are_pictures():
    assert plan_tiles(1, 1, tile=256, overlap=24, size=ANY).boxes == (Box(0, 0, 1, 1),)
    thread = plan_tiles(3, 5000, tile=256, overlap=24, size=ANY)
    assert (thread.rows, thread.tile_height) == (1, 3)
    assert thread.columns == 24


def test_a_square_network_gets_square_tiles_of_a_small_picture_too():
    plan = plan_tiles(100, 300, tile=128, overlap=8, size=SizeRequirements(square=True))
    assert plan.tile_height == 100
    assert plan.padded_height == plan.padded_width == plan.tile_width


def test_aligned_tiles_start_at_multiples_and_the_last_is_smaller():
    plan = plan_tiles(10, 1000, tile=256, overlap=24, size=ANY, align=64)
    assert [box.left for box in plan.boxes] == [0, 192, 384, 576, 768]
    assert plan.boxes[-1].width == 232


@pytest.mark.parametrize(
    ("tile", "overlap", "size"),
    [
        (48, 24, ANY),
        (16, 0, ANY),
        (None, 8, SizeRequirements(fixed=64)),
        (None, 32, SizeRequirements(fixed=64)),
        (256, 32, SizeRequirements(fixed=64)),
    ],
)
def test_a_tile_that_cannot_work_is_refused_with_the_next_step(tile, overlap, size):
    with pytest.raises(ParameterError) as caught:
        plan_tiles(500, 500, tile=tile, overlap=overlap, size=size)
    assert "--tile" in caught.value.hint


def test_tiles_too_small_for_an_alignment_start_anywhere_and_the_plan_says_so():
    aligned, small = (plan_tiles(900, 900, tile=tile, overlap=16, size=ANY, align=192) for tile in (224, 223))
    assert (aligned.align, small.align) == (192, 1)
    assert len({(box.height, box.width) for box in small.boxes}) == 1
    assert {box.top % 192 for box in aligned.boxes} == {0}


def test_the_smallest_tile_is_accepted_and_the_next_smaller_is_not():
    least = smallest_tile(overlap=24, size=SizeRequirements(multiple_of=8))
    assert least == 56
    plan_tiles(500, 500, tile=least, overlap=24, size=SizeRequirements(multiple_of=8))
    with pytest.raises(ParameterError):
        plan_tiles(500, 500, tile=least - 1, overlap=24, size=SizeRequirements(multiple_of=8))
