"""Colour fixes: by their definition, by official outputs, and the same in bands as in one piece."""

from __future__ import annotations

import numpy as np
import pytest

from upx.colour import EPSILON, REACH, adain, from_unit, low_pass, statistics, to_unit, wavelet

RNG = np.random.default_rng(11)
UINT8 = np.dtype(np.uint8)


def photo(height=70, width=50):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def slow_low_pass(values):
    """The definition, kernel by kernel: 3 x 3 binomial, steps 1 to 16, edges repeated."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for step in (1, 2, 4, 8, 16):
        padded = np.pad(values, ((step, step), (step, step), (0, 0)), mode="edge")
        height, width = values.shape[:2]
        values = sum(
            kernel[row, column] * padded[row * step : row * step + height, column * step : column * step + width]
            for row in range(3)
            for column in range(3)
        )
    return values


def test_low_frequencies_are_five_binomial_passes_with_doubling_steps():
    picture = photo()
    np.testing.assert_allclose(low_pass(to_unit(picture)), slow_low_pass(picture / 255), atol=1e-6)


def test_mean_and_spread_are_the_source_s_and_do_not_depend_on_bands():
    target, source = photo() // 2, photo(20, 30)
    whole, banded = statistics([target]), statistics([target[:33], target[33:]])
    np.testing.assert_allclose(whole.mean, banded.mean, rtol=1e-12)
    np.testing.assert_allclose(whole.std, banded.std, rtol=1e-9)
    np.testing.assert_allclose(whole.std, np.sqrt(np.var(target / 255, axis=(0, 1), ddof=1) + EPSILON), rtol=1e-7)
    fixed = statistics([adain(target, whole, statistics([source]))])
    np.testing.assert_allclose(fixed.mean, statistics([source]).mean, atol=1e-6)
    np.testing.assert_allclose(fixed.std, statistics([source]).std, atol=1e-4)


def test_a_channel_of_one_value_and_a_single_pixel_stay_finite():
    flat = np.full((1, 1, 3), 40, np.uint8)
    assert np.isfinite(adain(flat, statistics([flat]), statistics([photo()]))).all()
    np.testing.assert_allclose(wavelet(flat, flat), flat / np.float32(255), atol=1e-6)


def test_a_band_with_its_reach_around_is_fixed_as_in_the_whole_picture():
    target, source = photo(150, 40), photo(150, 40)
    whole = wavelet(target, source)
    for top, end in ((0, 20), (60, 90), (130, 150)):
        first, last = max(top - REACH, 0), min(end + REACH, 150)
        band = wavelet(target[first:last], source[first:last])[top - first : end - first]
        np.testing.assert_array_equal(band, whole[top:end])


@pytest.mark.parametrize(("truncate", "levels"), [(False, [0, 2, 2, 255]), (True, [0, 1, 2, 255])])
def test_levels_are_rounded_half_to_even_or_cut_off(truncate, levels):
    values = np.array([-0.5, 1.5 / 255, 2.5 / 255, 1.5], np.float32)
    np.testing.assert_array_equal(from_unit(values, UINT8, truncate=truncate), levels)
    np.testing.assert_array_equal(from_unit(values, np.dtype(np.float32), truncate=truncate)[[0, -1]], [0, 1])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["a_64x48", "b_33x21"])
def test_the_official_fixes_are_met_to_the_byte(shared, name):
    def golden(what):
        return np.load(shared / "golden" / "tsdsr" / "colour_fix" / f"{name}_{what}.npy")

    target = golden("target")
    fixed = {
        "wavelet": wavelet(target, golden("source_same")),
        "adain": adain(target, statistics([target]), statistics([golden("source_low")])),
    }
    for method, values in fixed.items():
        np.testing.assert_allclose(values, golden(f"{method}_float"), atol=5e-7)
        np.testing.assert_array_equal(from_unit(values, UINT8, truncate=True), golden(f"{method}_u8"))
