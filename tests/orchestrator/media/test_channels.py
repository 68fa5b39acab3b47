from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from upx.media.channels import Channels, enlarged_alpha, flattened, luma, premultiply
from upx.media.sources import from_array, from_pil
from upx.specs import Box

RNG = np.random.default_rng(3)


def enlarged(tile, scale):
    """A model of sorts: nearest neighbours, which agrees with bicubic alpha at no edge."""
    return tile.repeat(scale, 0).repeat(scale, 1)


def smoothed(tile, scale):
    """A model that rings, as trained ones do."""
    size = (tile.shape[1] * scale, tile.shape[0] * scale)
    planes = [
        Image.fromarray(np.ascontiguousarray(tile[..., index], np.float32)).resize(size, Image.Resampling.LANCZOS)
        for index in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2).clip(0, 1)


def run(picture, scale, model, rows=None):
    channels = Channels(picture, scale)
    out = model(channels.tile(Box(0, 0, picture.height, picture.width)), scale).astype(channels.dtype)
    step = rows or len(out)
    return np.concatenate([channels.finish(top, out[top : top + step]) for top in range(0, len(out), step)])


def disc(colour, background):
    """A hard-edged disc; what is invisible around it has another colour."""
    rows, columns = np.mgrid[:40, :40]
    inside = (rows - 19.5) ** 2 + (columns - 19.5) ** 2 < 196
    return np.where(inside[..., None], (*colour, 255), (*background, 0)).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_alpha_in_bands_equals_alpha_enlarged_whole(scale, dtype):
    array = RNG.integers(0, 256, (61, 23, 4), np.uint8)
    array[20:40, 5:15, 3] = 255
    array = array if dtype == "uint8" else array.astype(np.float32) / 255
    plane = Image.fromarray(np.ascontiguousarray(array[..., 3]))
    size = (23 * scale, 61 * scale)
    whole = np.asarray(plane.resize(size, Image.Resampling.BICUBIC)).clip(0, 255 if dtype == "uint8" else 1)
    picture = from_array(array)
    cuts = sorted({0, 1, 7, 16 * scale, 20 * scale + 1, 50 * scale, 61 * scale})
    bands = [enlarged_alpha(picture, scale, top, bottom) for top, bottom in pairwise(cuts)]
    if dtype == "uint8":
        np.testing.assert_array_equal(np.concatenate(bands), whole)
    else:
        np.testing.assert_allclose(np.concatenate(bands), whole, atol=1e-6)


@pytest.mark.parametrize("model", [enlarged, smoothed])
@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (0, 255, 0)])
def test_a_hard_edge_has_no_fringe_of_what_was_invisible(model, background):
    colour = (200, 30, 60)
    result = run(from_array(disc(colour, background)), 4, model)
    distance = np.abs(result[..., :3].astype(int) - colour).max(axis=2)
    partly = (result[..., 3] > 0) & (result[..., 3] < 255)
    assert partly.any()
    assert distance[partly].max() == 0
    assert distance[result[..., 3] == 255].max() <= 3


def test_an_edge_between_two_colours_stays_between_them():
    array = disc((200, 30, 60), (0, 0, 0))
    array[:, 20:, :3] = (20, 90, 200)
    result = run(from_array(array), 4, smoothed)
    edge = (result[..., 3] > 0) & (result[..., 3] < 255)
    assert result[edge][:, 0].min() >= 20
    assert result[edge][:, 0].max() <= 200
    assert result[edge][:, 1].min() >= 30


def test_soft_alpha_and_colours_come_back_at_scale_one():
    array = RNG.integers(0, 256, (33, 21, 4), np.uint8)
    array[..., 3] |= 64
    np.testing.assert_array_equal(run(from_array(array), 1, enlarged), array)


def test_away_from_edges_the_models_own_overshoot_survives():
    array = np.full((20, 20, 4), 100, np.uint8)
    array[..., 3] = 255
    array[0, 0, 3] = 0
    result = run(from_array(array), 2, lambda tile, scale: enlarged(tile, scale) * np.float32(1.5))
    assert (result[10:, 10:, :3] == 150).all()


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_finishing_does_not_depend_on_how_rows_are_cut(channels, rows):
    array = disc((200, 30, 60), (9, 9, 9))
    array[5:30, 5:30, 3] //= 2
    picture = from_array(array)
    np.testing.assert_array_equal(run(picture, 3, smoothed, rows=rows), run(picture, 3, smoothed))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_alpha_leaves_colours_and_their_dtype_alone(value):
    array = RNG.integers(0, 256, (10, 8, 4), np.uint8)
    array[..., 3] = value
    picture = from_array(array)
    assert Channels(picture, 2).dtype == "uint8"
    np.testing.assert_array_equal(run(picture, 2, enlarged), enlarged(array, 2))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 3)])
def test_opaque_pictures_pass_in_their_own_dtype(shape, dtype):
    array = RNG.integers(0, 256, shape, np.uint8)
    array = array if dtype == "uint8" else array.astype(np.float32) / 255
    picture = from_array(array)
    result = run(picture, 2, enlarged)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, enlarged(array.reshape(12, 9, -1), 2), atol=1e-7)


def test_grey_with_alpha_stays_grey_with_alpha():
    image = Image.fromarray(RNG.integers(0, 256, (12, 9, 2), np.uint8))
    picture = from_pil(image)
    assert Channels(picture, 2).mode == "LA"
    assert run(picture, 2, enlarged).shape == (24, 18, 2)


def test_grey_is_what_pillow_makes_of_the_same_colours():
    rgb = RNG.integers(0, 256, (30, 30, 3), np.uint8)
    np.testing.assert_array_equal(luma(rgb), np.asarray(Image.fromarray(rgb).convert("L")))
    every = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    assert luma(every)[:, 0].tolist() == list(range(256))


def test_premultiplied_colours_are_float_and_exact():
    result = premultiply(np.full((1, 1, 3), 255, np.uint8), np.full((1, 1), 51, np.uint8))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 0.2, rtol=1e-6)


@given(st.integers(0, 255), st.integers(0, 255))
def test_flattening_over_white_is_rounded(level, alpha):
    (value,) = flattened(np.array([[[level, alpha]]], np.uint8)).ravel()
    assert abs(int(value) - (level * alpha + 255 * (255 - alpha)) / 255) <= 0.5
