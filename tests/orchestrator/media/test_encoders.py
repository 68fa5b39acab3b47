import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from upx.errors import OutputError, ParameterError, PictureTooLargeError, UnsupportedPictureError
from upx.media.encoders import check_output_size, format_facts, open_encoder
from upx.media.memory import ArrayEncoder, like_input, to_image
from upx.media.orientation import EXIF_PREFIX

RNG = np.random.default_rng(4)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = SRGB[:16] + b"GRAY" + SRGB[20:]


def exif_bytes(comment=b""):
    exif = Image.Exif()
    exif[0x010F] = "A Maker"
    exif[0x9286] = comment
    return exif.tobytes().removeprefix(EXIF_PREFIX)


EXIF = exif_bytes()


def pixels(mode, height, width):
    smooth = Image.fromarray(RNG.integers(0, 256, (6, 8, 4), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = RNG.integers(-6, 7, (height, width, 4))
    return (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)[..., : len(mode)]


def encoded(picture_format, rows, mode, *, step=None, **options):
    sink = io.BytesIO()
    encoder = open_encoder(sink, picture_format, width=rows.shape[1], height=len(rows), mode=mode, **options)
    for top in range(0, len(rows), step or len(rows)):
        encoder.write(rows[top : top + (step or len(rows))])
    encoder.close()
    return sink.getvalue(), encoder


def chunks(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, []
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(name + body)
        found.append((name, body))
        at += 12 + size
    return found


def unfiltered(data, width, channels):
    """Undo Average one byte at a time, as the standard states it."""
    stride = width * channels
    above, rows = bytes(stride), []
    for at in range(0, len(data), stride + 1):
        assert data[at] == 3
        row = bytearray()
        for index, value in enumerate(data[at + 1 : at + 1 + stride]):
            left = row[index - channels] if index >= channels else 0
            row.append((value + (left + above[index]) // 2) % 256)
        rows.append(bytes(row))
        above = rows[-1]
    return b"".join(rows)


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "LA", "RGB", "RGBA"]), st.integers(1, 40),
    st.integers(0, 99),
)  # fmt: skip
def test_a_png_undone_by_hand_is_the_rows_that_went_in(height, width, mode, step, seed):
    rows = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), np.uint8)
    data, _ = encoded("png", rows, mode, step=step)
    parts = chunks(data)
    assert [parts[0][0], parts[-1][0]] == [b"IHDR", b"IEND"]
    packed = b"".join(body for name, body in parts if name == b"IDAT")
    assert unfiltered(zlib.decompress(packed), width, len(mode)) == rows.tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (2500, 2), (301, 517)])
def test_two_other_decoders_read_our_png(mode, size):
    rows = pixels(mode, *size)
    data, encoder = encoded("png", rows, mode, step=64)
    assert encoder.streams
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(rows.shape), rows)
    np.testing.assert_array_equal(imagecodecs.png_decode(data).reshape(rows.shape), rows)


def test_a_png_of_many_chunks_leaves_while_it_is_written():
    rows = RNG.integers(0, 256, (400, 500, 3), np.uint8)
    sink = io.BytesIO()
    encoder = open_encoder(sink, "png", width=500, height=400, mode="RGB")
    encoder.write(rows[:300])
    early = len(sink.getvalue())
    encoder.write(rows[300:])
    encoder.close()
    assert early > 300_000
    assert sum(name == b"IDAT" for name, _ in chunks(sink.getvalue())) >= 3
    np.testing.assert_array_equal(np.asarray(Image.open(sink)), rows)


def test_rows_may_be_reused_after_a_write():
    rows = pixels("RGB", 90, 50)
    for picture_format in ("png", "jpeg", "webp"):
        sink = io.BytesIO()
        encoder = open_encoder(sink, picture_format, width=50, height=90, mode="RGB")
        buffer = np.empty((7, 50, 3), np.uint8)
        for top in range(0, 90, 7):
            part = buffer[: min(7, 90 - top)]
            part[:] = rows[top : top + 7]
            encoder.write(part)
            buffer[:] = 0
        encoder.close()
        assert sink.getvalue() == encoded(picture_format, rows, "RGB")[0]


@pytest.mark.parametrize(("quality", "subsampling"), [(None, 0), (90, 0), (89, 2), (30, 2)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (64, 64), (128, 70), (129, 33), (1203, 211)])
def test_a_jpeg_in_bands_has_the_bytes_of_one_encoded_whole(size, mode, quality, subsampling):
    rows = pixels(mode, *size)
    data, encoder = encoded("jpeg", rows, mode, step=50, quality=quality)
    assert encoder.streams
    whole = io.BytesIO()
    options = {} if mode == "L" else {"subsampling": subsampling}
    image = Image.fromarray(rows[..., 0] if mode == "L" else rows)
    image.save(whole, "JPEG", quality=quality or 95, restart_marker_rows=8, **options)
    assert data == whole.getvalue()
    assert imagecodecs.jpeg_decode(data).shape[:2] == size


@pytest.mark.parametrize("size", [(9, 65500), (65500, 9)])
def test_a_jpeg_as_long_as_they_come_is_decoded_whole(size):
    rows = np.zeros((*size, 1), np.uint8)
    rows[size[0] // 2 :, size[1] // 2 :] = 255
    data, _ = encoded("jpeg", rows, "L", step=1000)
    back = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(back.astype(int) - rows[..., 0]).max() <= 90
    assert np.abs(back.astype(int) - rows[..., 0]).mean() < 1


def test_alpha_into_jpeg_is_flattened_over_white_and_said():
    rows = np.full((32, 32, 4), 0, np.uint8)
    rows[:16] = (200, 40, 40, 255)
    data, encoder = encoded("jpeg", rows, "RGBA")
    assert encoder.warnings == ("JPEG has no alpha: flattened over white",)
    back = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(back[:16] - (200, 40, 40)).max() <= 3
    assert back[16:].min() >= 252


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_webp_is_held_whole_says_so_and_is_read_back(mode):
    rows = np.asarray(Image.fromarray(pixels("RGBA", 7, 5)).resize((80, 60)))[..., : len(mode)]
    data, encoder = encoded("webp", rows, mode, step=13)
    assert not encoder.streams
    image = Image.open(io.BytesIO(data))
    assert image.size == (80, 60)
    expected = np.asarray(to_image(rows).convert(image.mode)).astype(int)
    assert np.abs(np.asarray(image).astype(int) - expected).mean() < 12
    assert imagecodecs.webp_decode(data).shape[:2] == (60, 80)


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_profile_and_exif_are_written_byte_by_byte(picture_format, mode):
    profile = SRGB if mode == "RGB" else GREY
    data, encoder = encoded(picture_format, pixels(mode, 40, 30), mode, icc=profile, exif=EXIF)
    info = Image.open(io.BytesIO(data)).info
    assert info["exif"].removeprefix(EXIF_PREFIX) == EXIF
    if (picture_format, mode) == ("webp", "L"):
        assert "icc_profile" not in info
        assert "profile dropped" in encoder.warnings[0]
    else:
        assert info["icc_profile"] == profile
        assert encoder.warnings == ()


def test_exif_too_long_for_jpeg_is_dropped_and_said():
    data, encoder = encoded("jpeg", pixels("RGB", 8, 8), "RGB", exif=exif_bytes(b"x" * 70_000))
    assert encoder.warnings == ("EXIF dropped: too long for JPEG",)
    assert "exif" not in Image.open(io.BytesIO(data)).info


@pytest.mark.parametrize(
    ("picture_format", "longest"), [("webp", 16383), ("jpeg", 65500), ("jpg", 65500), ("png", 2**31 - 1)]
)
def test_a_side_longer_than_the_format_is_refused_before_the_work(picture_format, longest):
    check_output_size(picture_format, longest, 1)
    for size in ((longest + 1, 1), (1, longest + 1)):
        with pytest.raises(PictureTooLargeError, match=str(longest)) as caught:
            check_output_size(picture_format, *size)
        assert caught.value.hint


def test_formats_are_found_by_name_and_suffix_and_others_refused():
    assert {format_facts(name).name for name in ("jpg", ".JPG", "jpeg", ".jpeg")} == {"jpeg"}
    with pytest.raises(UnsupportedPictureError, match="gif") as caught:
        format_facts(".gif")
    assert "png" in caught.value.hint


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_a_quality_out_of_range_is_refused(quality):
    with pytest.raises(ParameterError, match="quality"):
        open_encoder(io.BytesIO(), "jpeg", width=1, height=1, mode="RGB", quality=quality)


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_closing_before_the_last_row_is_an_error(picture_format):
    encoder = open_encoder(io.BytesIO(), picture_format, width=5, height=5, mode="RGB")
    encoder.write(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="4 of 5 rows"):
        encoder.close()
    encoder.abort()


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_to_a_path_the_file_appears_at_close_and_not_after_abort(tmp_path: Path, picture_format):
    rows = pixels("RGB", 300, 200)
    path = tmp_path / "out"
    encoder = open_encoder(path, picture_format, width=200, height=300, mode="RGB")
    encoder.write(rows)
    assert not path.exists()
    encoder.close()
    assert path.read_bytes() == encoded(picture_format, rows, "RGB")[0]
    encoder = open_encoder(tmp_path / "other", picture_format, width=200, height=300, mode="RGB")
    encoder.write(rows)
    encoder.abort()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_picture_that_webp_cannot_encode_is_an_error_with_a_way_out(monkeypatch):
    def give_up(*_, **__):
        raise ValueError("encoding error 1")

    monkeypatch.setattr(Image.Image, "save", give_up)
    with pytest.raises(OutputError) as caught:
        encoded("webp", pixels("RGB", 8, 8), "RGB")
    assert "-f png" in caught.value.hint


def test_rows_are_collected_into_an_array_and_a_pillow_picture():
    rows = pixels("LA", 9, 7)
    encoder = ArrayEncoder(width=7, height=9, mode="LA", dtype="uint8")
    encoder.write(rows[:4])
    with pytest.raises(ValueError, match="4 of 9"):
        encoder.close()
    encoder.write(rows[4:])
    encoder.close()
    np.testing.assert_array_equal(encoder.array, rows)
    image = to_image(encoder.array, icc=GREY, exif=EXIF)
    assert image.mode == "LA"
    assert image.getexif()[0x010F] == "A Maker"
    assert like_input(encoder.array[..., :1], (9, 7)).shape == (9, 7)
    assert like_input(encoder.array[..., :1], (9, 7, 1)).shape == (9, 7, 1)
