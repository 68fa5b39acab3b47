"""The picture that comes out: better than interpolation, without seams, upright and in its own colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

import upx

pytestmark = pytest.mark.shared_workers

PHOTOGRAPHS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "hubble_deep_field.jpg"]


@pytest.fixture(scope="module")
def span(upx_home):
    """The default backend, one worker for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPX_HOME", str(upx_home))
        with upx.Upscaler(workers=0) as upscaler:
            yield upscaler


def crop_512(path):
    """The middle of a photograph, at most 512 a side, sides divisible by 4."""
    image = Image.open(path).convert("RGB")
    width, height = (min(side, 512) // 4 * 4 for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def luma(image):
    """BT.601 luma, 16..235, as the field measures PSNR-Y."""
    rgb = np.asarray(image, np.float64) / 255
    return 16 + rgb @ np.array([65.481, 128.553, 24.966])


def psnr_y(truth, image):
    edge = (slice(4, -4), slice(4, -4))
    return peak_signal_noise_ratio(luma(truth)[edge], luma(image)[edge], data_range=255)


def test_span_beats_bicubic_by_a_decibel_and_a_half_on_real_photographs(span, photo):
    gains = {}
    for name in PHOTOGRAPHS:
        truth = crop_512(photo(name))
        small = truth.resize((truth.width // 4, truth.height // 4), Image.Resampling.BICUBIC)
        bicubic = small.resize(truth.size, Image.Resampling.BICUBIC)
        gains[name] = psnr_y(truth, span(small)) - psnr_y(truth, bicubic)
    print({name: round(gain, 2) for name, gain in gains.items()})
    assert np.mean(list(gains.values())) >= 1.5, gains


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png"])
def test_tiles_leave_no_seam(span, photo, upx_home, monkeypatch, name):
    picture = np.asarray(Image.open(photo(name)).convert("RGB"))[:300, :420]
    tiled = span(picture)
    monkeypatch.setenv("UPX_HOME", str(upx_home))
    with upx.Upscaler(tile="off") as whole:
        untiled = whole(picture)
    assert tiled.shape == untiled.shape == (1200, 1680, 3)
    assert np.abs(tiled.astype(int) - untiled).max() <= 1


def test_small_tiles_leave_no_seam_either(span, photo, upx_home, monkeypatch):
    picture = np.asarray(Image.open(photo("chelsea.png")).convert("RGB"))[:200, :260]
    monkeypatch.setenv("UPX_HOME", str(upx_home))
    with upx.Upscaler(tile=96) as small:
        assert np.abs(small(picture).astype(int) - span(picture)).max() <= 1


def test_each_channel_stays_in_its_place(span):
    for channel in range(3):
        picture = np.zeros((24, 24, 3), np.uint8)
        picture[..., channel] = 200
        means = span(picture)[8:-8, 8:-8].mean((0, 1))
        assert means.argmax() == channel
        assert means[channel] == pytest.approx(200, abs=12)
        assert max(np.delete(means, channel)) < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_comes_out_upright(span, photo, tmp_path, orientation):
    upright = Image.open(photo("chelsea.png")).convert("RGB").resize((60, 40))
    stored = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    source = tmp_path / "turned.png"
    (upright if stored is None else upright.transpose(stored)).save(source, exif=exif)
    with Image.open(span(source, tmp_path / "out.png")) as image:
        assert image.size == (240, 160)
        small = np.asarray(image.resize(upright.size, Image.Resampling.BOX), int)
    assert np.abs(small - np.asarray(upright, int)).mean() < 6


def test_a_hard_alpha_edge_has_no_fringe_and_the_colour_beside_it_is_its_own(span):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[..., 1] = 255  # invisible green everywhere
    picture[16:48, 16:48] = (220, 30, 30, 255)
    result = span(picture)
    visible = result[result[..., 3] > 8]
    assert result.shape == (256, 256, 4)
    assert visible[:, 1].max() < 80, "the green under transparent pixels bled out"
    assert result[128, 128].tolist() == pytest.approx([220, 30, 30, 255], abs=8)
    assert result[8, 8, 3] == 0


def test_grey_stays_grey(span, photo):
    grey = np.asarray(Image.open(photo("camera.png")).convert("L"))[100:180, 100:200]
    result = span(grey)
    assert result.shape == (320, 400)
    assert result.dtype == np.uint8
    assert abs(result.mean() - grey.mean()) < 2


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 5000, 3), (5000, 3, 3), (1, 70, 4)])
def test_odd_shapes_are_pictures_too(span, shape):
    picture = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    assert span(picture).shape == (shape[0] * 4, shape[1] * 4, shape[2])


def test_a_float_picture_agrees_with_its_eight_bit_twin(span, photo):
    eight = np.asarray(Image.open(photo("coffee.png")).convert("RGB"))[:80, :90]
    result = span((eight / np.float32(255)).astype(np.float32))
    assert result.dtype == np.float32
    assert np.abs(np.rint(result * 255).clip(0, 255) - span(eight)).max() <= 1
