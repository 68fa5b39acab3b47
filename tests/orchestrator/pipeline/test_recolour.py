"""A colour fix runs once over the whole stitched picture, however it was cut."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image
from test_run import Pool, job, photo

from upx.colour import adain, from_unit, statistics, wavelet
from upx.errors import ModelError, OutputError
from upx.pipeline import recolour
from upx.pipeline.recolour import Enlarged
from upx.pipeline.run import run_job
from upx.specs import ColourSpec

UINT8 = np.dtype(np.uint8)


class Darker(Pool):
    """Gives every tile back at half its brightness."""

    def _answer(self, tile, out_dtype, batch):
        return super()._answer(tile // 2 if tile.dtype == np.uint8 else tile / 2, out_dtype, batch)


def recoloured(tmp_path, method, *, spec=None, **more):
    made = job(tmp_path, **more)
    backend = dataclasses.replace(made.route.backend, colour=spec or ColourSpec("colour_fix"))
    return dataclasses.replace(made, route=dataclasses.replace(made.route, backend=backend), colour_fix=method)


def enlarged(picture, scale=2):
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((width * scale, height * scale), Image.Resampling.BICUBIC))


def expected(method, picture, reference):
    result = (picture // 2).repeat(2, 0).repeat(2, 1)
    if method == "wavelet":
        return from_unit(wavelet(result, enlarged(picture)), UINT8, truncate=False)
    return from_unit(adain(result, statistics([result]), statistics([reference])), UINT8, truncate=False)


@pytest.mark.parametrize("method", ["adain", "wavelet"])
@pytest.mark.parametrize("size", [(1, 1), (33, 200), (150, 131)])
def test_tiles_that_lost_their_colours_are_fixed_as_one_picture(tmp_path, method, size):
    picture = photo(*size)
    result = run_job(recoloured(tmp_path, method), Darker(), picture, None)
    np.testing.assert_array_equal(result.output, expected(method, picture, enlarged(picture)))
    assert not list((tmp_path / "scratch").iterdir())


def test_mean_and_spread_may_be_the_input_s(tmp_path):
    picture = photo(60, 40)
    spec = ColourSpec("colour_fix", adain="input")
    result = run_job(recoloured(tmp_path, "adain", spec=spec), Darker(), picture, None)
    np.testing.assert_array_equal(result.output, expected("adain", picture, picture))


def test_what_is_blended_is_rounded_once_after_the_fix(tmp_path):
    picture, sent = photo(90, 70), []

    class Finer(Darker):
        """Answers in floats between the levels."""

        def _answer(self, tile, out_dtype, batch):
            sent.append(out_dtype)
            return super()._answer(tile / np.float32(255) + np.float32(0.8 / 255), out_dtype, batch)

    spec = ColourSpec("colour_fix", truncate=True)
    made = recoloured(tmp_path, "adain", spec=spec, stitch="feather")
    result = run_job(made, Finer(), picture, None)
    darker = ((picture / np.float32(255) + np.float32(0.8 / 255)) / 2).repeat(2, 0).repeat(2, 1)
    wanted = adain(darker, statistics([darker]), statistics([enlarged(picture)]))
    off = result.output.astype(int) - from_unit(wanted, UINT8, truncate=True)
    assert set(sent) == {"float32"}
    assert np.abs(off).max() <= 1  # a blended float may lie a hair below a whole level
    assert (off != 0).mean() < 0.001


def test_none_fixes_nothing_and_spools_nothing(tmp_path):
    picture = photo(60, 40)
    result = run_job(recoloured(tmp_path, "none"), Darker(), picture, None)
    np.testing.assert_array_equal(result.output, (picture // 2).repeat(2, 0).repeat(2, 1))
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bands_of_the_enlarged_picture_are_those_of_one_call_of_pillow(dtype, scale):
    picture = photo(57, 31) if dtype == np.uint8 else np.random.default_rng(1).random((57, 31, 3), np.float32)
    size = (31 * scale, 57 * scale)
    planes = [Image.fromarray(picture[..., each].copy()) for each in range(3)]
    whole = np.stack([np.asarray(plane.resize(size, Image.Resampling.BICUBIC)) for plane in planes], axis=-1)
    banded = Enlarged(picture, scale)
    for top, end in ((0, 7), (7, 130), (57 * scale - 5, 57 * scale)):
        # uint8 to the level; of floats the last bit may differ where the scale is no power of two.
        within = 0 if dtype == np.uint8 else 2e-7
        np.testing.assert_allclose(banded.rows(top, min(end, 57 * scale)), whole[top:end], rtol=0, atol=within)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_alpha_go_through_a_fix(tmp_path, channels):
    picture = photo(40, 50, channels)[..., 0] if channels == 1 else photo(40, 50, 4)
    result = run_job(recoloured(tmp_path, "wavelet"), Pool(), picture, None)
    assert result.output.shape[:2] == (80, 100)
    assert result.output.dtype == np.uint8


def test_a_disk_without_space_is_said_and_nothing_is_written(tmp_path, monkeypatch):
    class Full:
        def __init__(self, **_more):
            self.closed = False

        def seek(self, _to):
            pass

        def write(self, _content):
            raise OSError(28, os.strerror(28))

        def close(self):
            self.closed = True

    monkeypatch.setattr(recolour.tempfile, "TemporaryFile", Full)
    target = tmp_path / "out.png"
    with pytest.raises(OutputError, match="No space left") as caught:
        run_job(recoloured(tmp_path, "adain"), Pool(), photo(40, 40), target)
    assert "switch the colour fix off" in caught.value.hint
    assert not target.exists()


def test_a_job_that_fails_leaves_no_scratch_file(tmp_path):
    with pytest.raises(ModelError):
        run_job(recoloured(tmp_path, "adain"), Pool(fail=ModelError("no")), photo(100, 100), None)
    assert not list((tmp_path / "scratch").iterdir())
