import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from upx.media.orientation import EXIF_PREFIX, exif_block, read_orientation, reset_orientation
from upx.media.reading import open_picture
from upx.specs import Box

RNG = np.random.default_rng(1)


def exif_with(orientation, order="little"):
    exif = Image.Exif()
    exif.endian = "<" if order == "little" else ">"
    exif[0x010F] = "A Maker of Cameras"
    exif[0x0112] = orientation
    exif[0x9286] = b"a comment"
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_every_orientation_is_shown_as_pillow_would_show_it(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(RNG.integers(0, 256, (31, 47, 3), np.uint8))
    image.save(path, exif=exif_with(orientation))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    with open_picture(path) as picture:
        assert (picture.height, picture.width) == shown.shape[:2]
        np.testing.assert_array_equal(picture.crop(Box(0, 0, picture.height, picture.width)), shown)
        for box in (Box(0, 0, 5, 9), Box(11, 3, 13, 20), Box(picture.height - 4, picture.width - 2, 4, 2)):
            expected = shown[box.top : box.bottom, box.left : box.right]
            np.testing.assert_array_equal(picture.crop(box), expected)
        assert read_orientation(picture.exif) == 1
        assert b"A Maker of Cameras" in picture.exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_alpha_is_turned_with_its_colours(tmp_path, orientation):
    path = tmp_path / "a.png"
    Image.fromarray(RNG.integers(0, 256, (12, 17, 4), np.uint8)).save(path, exif=exif_with(orientation))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    with open_picture(path) as picture:
        box = Box(1, 2, 8, 7)
        np.testing.assert_array_equal(picture.alpha(box), shown[1:9, 2:9, 3])


def test_a_tiff_that_pillow_turns_itself_is_not_turned_twice(tmp_path):
    path = tmp_path / "a.tif"
    image = Image.fromarray(RNG.integers(0, 256, (12, 17, 3), np.uint8))
    image.save(path, tiffinfo={0x0112: 6})
    with open_picture(path) as picture:
        expected = np.rot90(np.asarray(image), -1)
        np.testing.assert_array_equal(picture.crop(Box(0, 0, picture.height, picture.width)), expected)


@pytest.mark.parametrize("order", ["little", "big"])
def test_resetting_the_orientation_changes_nothing_else(order):
    exif = exif_with(6, order).removeprefix(EXIF_PREFIX)
    assert read_orientation(exif) == 6
    reset = reset_orientation(exif)
    assert read_orientation(reset) == 1
    assert len(reset) == len(exif)
    assert sum(a != b for a, b in zip(exif, reset, strict=True)) == 1


def test_exif_that_imagemagick_hid_in_text_is_found():
    exif = exif_with(8)
    text = f"\nexif\n{len(exif):8d}\n{exif.hex()}\n"
    assert exif_block({"Raw profile type exif": text}) == exif.removeprefix(EXIF_PREFIX)
    assert exif_block({"Raw profile type exif": "\nexif\n 4\nnot hexadecimal"}) is None
    assert exif_block({}) is None


@given(st.binary(max_size=60), st.sampled_from([b"II*\0", b"MM\0*"]))
def test_damaged_exif_means_as_stored_and_raises_nothing(tail, head):
    assert isinstance(read_orientation(head + tail), int)
    assert len(reset_orientation(head + tail)) == len(head + tail)


def test_a_photograph_with_damaged_exif_is_still_read(tmp_path):
    path = tmp_path / "a.jpg"
    image = Image.fromarray(RNG.integers(0, 256, (12, 17, 3), np.uint8))
    image.save(path, exif=exif_with(6)[:20])
    with open_picture(path) as picture:
        assert (picture.height, picture.width) == (12, 17)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_out_of_range_means_as_stored(tmp_path, value):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (6, 4)).save(path, exif=exif_with(value))
    with open_picture(path) as picture:
        assert (picture.height, picture.width) == (4, 6)
