import io
import os
import struct
import tempfile
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from upx.errors import PictureTooLargeError, UnreadablePictureError, UnsupportedPictureError
from upx.media.reading import open_picture
from upx.specs import Box

RNG = np.random.default_rng(5)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(mode, height=37, width=53):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    levels = RNG.integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels, mode=None if mode != "CMYK" else "CMYK")


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def whole(picture):
    return Box(0, 0, picture.height, picture.width)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bytes(width, height, depth, colour_type, rows):
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = [png_chunk(b"IHDR", head), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_colours_and_alpha_are_read_as_they_lie_in_the_file(tmp_path, mode, suffix):
    if suffix == "webp" and mode in {"L", "LA"}:
        mode = {"L": "RGB", "LA": "RGBA"}[mode]
    source = noise(mode)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    with open_picture(saved(tmp_path, source, f"a.{suffix}", **options)) as picture:
        assert (picture.height, picture.width) == (37, 53)
        assert (picture.mode, picture.has_alpha) == (mode.removesuffix("A"), mode.endswith("A"))
        assert (picture.format, picture.dtype, picture.warnings) == (suffix, "uint8", ())
        box = Box(5, 7, 20, 30)
        expected = np.asarray(source.convert("RGB"))[5:25, 7:37]
        np.testing.assert_array_equal(picture.crop(box), expected)
        assert picture.crop(box).flags.c_contiguous
        if picture.has_alpha:
            np.testing.assert_array_equal(picture.alpha(box), np.asarray(source.getchannel("A"))[5:25, 7:37])
        else:
            assert (picture.alpha(box) == 255).all()
            assert picture.alpha_constant is None


def test_a_jpeg_is_read_and_a_crop_larger_than_a_band_is_whole(tmp_path):
    source = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), np.uint8)).resize((1500, 1000))
    path = saved(tmp_path, source, "a.jpg")
    with open_picture(path) as picture:
        assert picture.format == "jpeg"
        np.testing.assert_array_equal(picture.crop(whole(picture)), np.asarray(Image.open(path)))


def test_a_constant_alpha_is_noticed_and_a_varying_one_too(tmp_path):
    image = noise("RGBA")
    image.putalpha(77)
    with open_picture(saved(tmp_path, image, "a.png")) as picture:
        assert picture.alpha_constant == 77
    image.putpixel((52, 36), (0, 0, 0, 78))
    with open_picture(saved(tmp_path, image, "b.png")) as picture:
        assert picture.alpha_constant is None


def test_a_palette_becomes_rgb_and_its_transparency_alpha(tmp_path):
    source = noise("RGB").quantize(8)
    with open_picture(saved(tmp_path, source, "a.png")) as picture:
        assert (picture.mode, picture.has_alpha) == ("RGB", False)
        assert picture.warnings == ("palette converted to RGB",)
        np.testing.assert_array_equal(picture.crop(whole(picture)), np.asarray(source.convert("RGB")))
    transparency = bytes([0, 128, 255, 255, 255, 255, 255, 255])
    with open_picture(saved(tmp_path, source, "b.png", transparency=transparency)) as picture:
        assert picture.has_alpha
        assert picture.warnings == ("palette converted to RGBA",)
        expected = np.frombuffer(transparency, np.uint8)[np.asarray(source)]
        np.testing.assert_array_equal(picture.alpha(whole(picture)), expected)


def test_a_transparent_colour_becomes_alpha(tmp_path):
    source = Image.new("RGB", (4, 2), (10, 20, 30))
    source.putpixel((1, 0), (1, 2, 3))
    with open_picture(saved(tmp_path, source, "a.png", transparency=(1, 2, 3))) as picture:
        assert picture.warnings == ("transparent colour converted to an alpha channel",)
        assert picture.alpha(whole(picture)).tolist() == [[255, 0, 255, 255], [255] * 4]


def test_one_bit_becomes_grey(tmp_path):
    source = noise("L").convert("1")
    with open_picture(saved(tmp_path, source, "a.png")) as picture:
        assert picture.mode == "L"
        assert "1-bit" in picture.warnings[0]
        np.testing.assert_array_equal(picture.crop(whole(picture))[..., 0], np.asarray(source) * np.uint8(255))


def test_cmyk_is_converted_and_its_profile_dropped_with_warnings(tmp_path):
    profile = bytearray(SRGB)
    profile[16:20] = b"CMYK"
    source = noise("CMYK")
    with open_picture(saved(tmp_path, source, "a.jpg", quality=100, icc_profile=bytes(profile))) as picture:
        assert picture.mode == "RGB"
        assert picture.icc is None
        assert "CMYK converted" in picture.warnings[0]
        assert "profile dropped" in picture.warnings[1]
        expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
        np.testing.assert_array_equal(picture.crop(whole(picture)), expected)


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_sixteen_bit_colour_that_pillow_cuts_silently_is_said(tmp_path, colour_type):
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    rows = b"".join(b"\x00" + bytes(range(5 * channels * 2)) for _ in range(3))
    (tmp_path / "a.png").write_bytes(png_bytes(5, 3, 16, colour_type, rows))
    with open_picture(tmp_path / "a.png") as picture:
        assert picture.warnings == ("16 bits a channel read as 8",)


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 200, dtype=np.uint16).reshape(100, 2)
    with open_picture(saved(tmp_path, Image.fromarray(levels), "a.png")) as picture:
        assert picture.mode == "L"
        assert picture.warnings == ("16-bit grey scaled to 8 bits",)
        expected = np.rint(levels / 257).astype(np.uint8)
        np.testing.assert_array_equal(picture.crop(whole(picture))[..., 1], expected)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame_is_used_and_said(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, frames[0], f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with open_picture(path) as picture:
        assert "animation: only the first frame is used" in picture.warnings
        assert picture.crop(Box(0, 0, 1, 1)).tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize("suffix", ["bmp", "tif", "ppm", "gif"])
def test_other_formats_are_read_with_what_applies(tmp_path, suffix):
    source = noise("L") if suffix == "gif" else noise("RGB")
    with open_picture(saved(tmp_path, source, f"a.{suffix}")) as picture:
        np.testing.assert_array_equal(picture.crop(whole(picture)), np.asarray(source.convert("RGB")))


def test_an_icc_profile_is_kept_byte_by_byte(tmp_path):
    for suffix in ("png", "jpg", "webp"):
        with open_picture(saved(tmp_path, noise("RGB"), f"a.{suffix}", icc_profile=SRGB)) as picture:
            assert picture.icc == SRGB


def test_a_float_tiff_is_refused_by_its_mode(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.zeros((4, 4), np.float32)), "a.tif")
    with pytest.raises(UnsupportedPictureError, match="mode F") as caught:
        open_picture(path)
    assert caught.value.hint


def refused(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((UnreadablePictureError, PictureTooLargeError)) as caught:
            open_picture(path, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_no_picture_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty.png").touch()
    assert "is empty" in refused(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello, I am a text that calls itself a picture")
    assert "not a picture" in refused(tmp_path / "text.png")
    (tmp_path / "sound.webp").write_bytes(b"RIFF\x10\0\0\0WAVEfmt ")
    assert "not a picture" in refused(tmp_path / "sound.webp")
    assert "is a directory" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "absent.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(tmp_path / "pipe.png")
    (tmp_path / "file").write_bytes(b"x")
    assert "cannot be opened" in refused(tmp_path / "file" / "below.png")


def test_a_file_without_permission_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "secret.png"
        noise("RGB").save(path)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read everything
        try:
            assert "no permission" in refused(path)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("jpg", {}), ("jpg", {"progressive": True}), ("webp", {}), ("gif", {}), ("bmp", {}), ("tif", {})],
)
def test_a_truncated_picture_is_refused_and_never_half_grey(tmp_path, suffix, options, share):
    buffer = io.BytesIO()
    noise("RGB", 200, 300).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix), **options)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    refused(path)


def test_a_damaged_png_is_refused(tmp_path):
    path = saved(tmp_path, noise("RGB", 100, 100), "a.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused(path)


def test_a_decompression_bomb_is_refused_from_its_header_alone(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_bytes(50_000, 50_000, 8, 2, b"\0" * 1000))
    assert "50000 x 50000 pixels are more than the limit" in refused(bomb)
    small = saved(tmp_path, noise("RGB"), "small.png")
    refused(small, max_pixels=37 * 53 - 1)
    open_picture(small, max_pixels=37 * 53).close()


def test_pillows_own_limit_does_not_stand_in_the_way(tmp_path, monkeypatch):
    path = saved(tmp_path, noise("RGB"), "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_picture(path) as picture:
            assert picture.crop(Box(0, 0, 2, 2)).shape == (2, 2, 3)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_are_closed_and_the_picture_outlives_them(tmp_path):
    paths = [saved(tmp_path, noise("RGB"), f"a.{suffix}") for suffix in ("png", "jpg", "webp", "gif", "tif")]
    before = open_files()
    for path in paths:
        picture = open_picture(path)
        assert open_files() == before
        path.unlink()
        assert picture.crop(whole(picture)).shape == (37, 53, 3)
        picture.close()


def test_pictures_are_opened_by_several_threads_at_once(tmp_path):
    source = noise("RGB", 120, 90)
    path = saved(tmp_path, source, "a.png")
    results = []

    def read():
        for _ in range(20):
            with open_picture(path) as picture:
                results.append(picture.crop(whole(picture)).tobytes() == source.tobytes())

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 80


def test_the_bytes_of_a_file_are_read_like_the_file(tmp_path):
    path = tmp_path / "in.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    with open_picture(path) as file, open_picture(path.read_bytes()) as data:
        whole = Box(0, 0, 4, 4)
        np.testing.assert_array_equal(file.crop(whole), data.crop(whole))
    with pytest.raises(UnreadablePictureError, match="stdin: is empty"):
        open_picture(b"")
    with pytest.raises(UnreadablePictureError, match="stdin: is not a picture"):
        open_picture(b"hello")
