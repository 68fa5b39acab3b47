import io

import numpy as np
import pytest
from PIL import Image

from upx.errors import UnreadablePictureError, UnsupportedPictureError
from upx.media.sources import from_array, from_pil
from upx.specs import Box

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3), (9, 7, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_are_pictures_and_are_not_copied(shape, dtype):
    array = RNG.integers(0, 256, shape, np.uint8)
    array = array if dtype == "uint8" else array.astype(np.float32) / 255
    picture = from_array(array)
    assert (picture.height, picture.width, picture.dtype, picture.shape) == (9, 7, dtype, shape)
    assert picture.mode == ("RGB" if shape[-1] in {3, 4} else "L")
    colours = picture.crop(Box(2, 1, 5, 4))
    assert colours.shape == (5, 4, 3)
    assert colours.dtype == dtype
    planes = array.reshape(9, 7, -1)
    np.testing.assert_array_equal(colours[..., 2], planes[2:7, 1:5, 2 if picture.mode == "RGB" else 0])
    if picture.has_alpha:
        np.testing.assert_array_equal(picture.alpha(Box(2, 1, 5, 4)), planes[2:7, 1:5, 3])
    assert np.shares_memory(picture.pixels._array, array)


def test_an_array_turned_on_its_side_gives_contiguous_crops():
    array = RNG.integers(0, 256, (9, 7, 3), np.uint8).swapaxes(0, 1)
    crop = from_array(array).crop(Box(0, 0, 7, 9))
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, array)


@pytest.mark.parametrize(
    ("array", "said", "hint"),
    [
        (np.zeros((4, 4, 3), np.uint16), "uint16", "65535"),
        (np.zeros((4, 4, 3)), "float64", "float32"),
        (np.zeros((4, 4), bool), "bool", "uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)", "(H, W, 3)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)", "(H, W, 3)"),
        (np.full((4, 4), np.nan, np.float32), "nan", "NaN"),
        (np.full((4, 4), 200, np.float32), "200", "divide"),
        (np.full((4, 4), -0.1, np.float32), "-0.1", "clip"),
    ],
)
def test_arrays_that_are_not_handled_are_refused_by_name(array, said, hint):
    with pytest.raises(UnsupportedPictureError, match=said) as caught:
        from_array(array)
    assert hint in caught.value.hint


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0), (0,)])
def test_an_array_without_pixels_is_refused(shape):
    with pytest.raises((UnreadablePictureError, UnsupportedPictureError)):
        from_array(np.zeros(shape, np.uint8))


def test_a_float_that_overshoots_by_rounding_is_clipped():
    picture = from_array(np.array([[-1e-4, 1 + 1e-4]], np.float32))
    assert picture.crop(Box(0, 0, 1, 2))[..., 0].tolist() == [[0, 1]]


def test_a_pillow_picture_stays_open_and_as_it_was():
    image = Image.fromarray(RNG.integers(0, 256, (9, 7, 4), np.uint8))
    before = image.tobytes()
    with from_pil(image) as picture:
        assert picture.has_alpha
        assert picture.format is None
        picture.crop(Box(0, 0, 9, 7))
    assert image.tobytes() == before


def test_a_palette_of_the_callers_is_converted_beside_it():
    image = Image.new("P", (3, 3))
    with from_pil(image) as picture:
        assert picture.warnings == ("palette converted to RGB",)
    assert image.mode == "P"
    assert image.getpixel((0, 0)) == 0


def test_a_truncated_pillow_picture_is_refused():
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (99, 99, 3), np.uint8)).save(buffer, "PNG")
    image = Image.open(io.BytesIO(buffer.getvalue()[:9000]))
    with pytest.raises(UnreadablePictureError, match="cannot be decoded") as caught:
        from_pil(image)
    assert caught.value.__cause__ is not None


def test_a_pillow_picture_without_pixels_is_refused():
    with pytest.raises(UnreadablePictureError, match="no pixels"):
        from_pil(Image.new("RGB", (0, 4)))
