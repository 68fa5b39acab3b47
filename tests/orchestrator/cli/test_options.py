"""What the words of options mean."""

from __future__ import annotations

import pytest

from upx.cli._options import parse_device, parse_keep_alive, parse_settings, parse_tile, parse_workers
from upx.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("30s", 30.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("90", 90.0),
        ("1.5h", 5400.0),
        ("forever", None),
    ],
)
def test_keep_alive_is_a_time_or_for_ever(text, seconds) -> None:
    assert parse_keep_alive(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "5 m", "5x", "m", "always", "1e3", "nan", "٣s"])
def test_what_is_no_time_is_refused(text) -> None:
    with pytest.raises(UsageError) as caught:
        parse_keep_alive(text)
    assert "forever" in caught.value.hint


@pytest.mark.parametrize(("text", "tile"), [("auto", 0), ("off", None), ("256", 256), ("AUTO", 0)])
def test_a_tile_is_automatic_off_or_pixels(text, tile) -> None:
    assert parse_tile(text) == tile


@pytest.mark.parametrize("text", ["0", "-5", "12.5", "none", "²"])
def test_what_is_no_tile_is_refused(text) -> None:
    with pytest.raises(UsageError):
        parse_tile(text)


@pytest.mark.parametrize(("text", "workers"), [("auto", 0), ("0", 0), ("3", 3)])
def test_workers_are_automatic_or_a_number(text, workers) -> None:
    assert parse_workers(text) == workers


@pytest.mark.parametrize("text", ["-1", "two", "1.5"])
def test_what_is_no_number_of_workers_is_refused(text) -> None:
    with pytest.raises(UsageError):
        parse_workers(text)


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_devices_are_known(text) -> None:
    assert parse_device(text) == text


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_other_devices_are_refused(text) -> None:
    with pytest.raises(UsageError):
        parse_device(text)


def test_settings_are_text_and_the_last_of_a_key_counts() -> None:
    assert parse_settings(["a=1", "b=x=y", "load-delay=2", "a=3", "c="]) == {
        "a": "3",
        "b": "x=y",
        "load_delay": "2",
        "c": "",
    }
    assert parse_settings(None) == {}


@pytest.mark.parametrize("text", ["a", "=1", ""])
def test_what_is_no_pair_is_refused(text) -> None:
    with pytest.raises(UsageError):
        parse_settings([text])
