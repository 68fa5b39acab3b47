"""Rounding, ranges and delivery."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upx_protocol.arrays import to_dtype, to_float
from upx_protocol.compute import deliver
from upx_protocol.errors import UpscalerError


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("rounding", ["half_even"])
def test_every_level_survives_the_way_through_float(dtype: str, rounding: str) -> None:
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    np.testing.assert_array_equal(to_dtype(to_float(levels), dtype, rounding=rounding), levels)


def test_half_even_and_truncate_round_as_they_say() -> None:
    values = np.array([0.5, 1.5, 2.5, 254.4, 254.9], np.float32) / np.float32(255)
    assert to_dtype(values, "uint8", rounding="truncate").tolist() == [0, 1, 2, 254, 254]
    rounded = to_dtype(np.array([0.25, 0.75], np.float32), "uint8")
    assert rounded.tolist() == [64, 191]


@given(st.floats(-1e6, 1e6, width=32))
def test_integers_are_clamped_and_floats_are_not(value: float) -> None:
    pixel = np.full((1, 1, 3), value, np.float32)
    expected = int(np.clip(np.rint(np.float32(value) * np.float32(255)), 0, 255))
    assert to_dtype(pixel, "uint8").ravel().tolist() == [expected] * 3
    assert to_dtype(pixel, "float32").ravel().tolist() == [np.float32(value)] * 3


def test_a_result_in_the_dtype_asked_for_passes_through_untouched() -> None:
    result = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert deliver(result, (2, 2, 3), "uint8") is result


@pytest.mark.parametrize(
    "result",
    [
        np.zeros((2, 3, 3), np.uint8),
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 3), np.int32),
        np.zeros((2, 2, 3), bool),
        np.full((2, 2, 3), np.nan, np.float32),
        np.array([[[np.inf] * 3] * 2] * 2, np.float32),
    ],
)
def test_a_result_that_is_no_picture_is_refused(result: np.ndarray) -> None:
    with pytest.raises(UpscalerError):
        deliver(result, (2, 2, 3), "uint8")


def test_a_single_value_that_is_not_finite_is_found_in_a_large_result() -> None:
    result = np.random.default_rng(1).random((512, 512, 3), np.float32)
    assert deliver(result, (512, 512, 3), "float32") is result
    result[100, 200, 1] = np.nan
    with pytest.raises(UpscalerError):
        deliver(result, (512, 512, 3), "uint8")
