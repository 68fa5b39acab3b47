"""Options of a job, and which pictures the given paths mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upx.errors import ParameterError, UnreadablePictureError
from upx.jobs import Input, JobOptions, expand_inputs, parse_format


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tile": -1}, "tile"),
        ({"overlap": -2}, "overlap"),
        ({"seed": -3}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": "3"}, "seed"),
        ({"tile": True}, "tile"),
        ({"overlap": 2.0}, "overlap"),
        ({"quality": 0}, "quality"),
        ({"quality": 101}, "quality"),
        ({"format": "tiff"}, "tiff"),
    ],
)
def test_options_out_of_their_range_are_refused_with_the_range(wrong, said) -> None:
    with pytest.raises(ParameterError, match=said) as caught:
        JobOptions(**wrong)
    assert caught.value.hint


def test_options_at_the_ends_of_their_ranges_are_taken() -> None:
    assert JobOptions(tile=None, overlap=0, seed=0, quality=1, format="jpg")
    assert JobOptions(tile=1, quality=100, format="WEBP")


@pytest.mark.parametrize(("word", "means"), [("jpg", "jpeg"), ("JPEG", "jpeg"), (".png", "png"), ("webp", "webp")])
def test_a_format_is_known_by_its_usual_names(word, means) -> None:
    assert parse_format(word) == means


def test_a_folder_is_searched_through_in_order_and_hidden_names_are_left_out(tmp_path) -> None:
    for name in ("b.png", "a.JPG", "sub/deep/c.webp", "notes.txt", ".hidden.png", ".thumbs/d.png"):
        touch(tmp_path / name)
    found = expand_inputs([tmp_path])
    assert [item.rel.as_posix() for item in found] == ["a.JPG", "b.png", "sub/deep/c.webp"]
    assert all(item.found and item.error is None for item in found)
    assert found[2].source == tmp_path / "sub" / "deep" / "c.webp"
    assert found[2].name == str(tmp_path / "sub" / "deep" / "c.webp")


def test_a_named_file_is_taken_whatever_its_suffix_and_keeps_its_place(tmp_path) -> None:
    odd, plain = touch(tmp_path / "z.picture"), touch(tmp_path / "a.png")
    assert [item.source for item in expand_inputs([odd, plain])] == [odd, plain]


def test_a_file_named_twice_is_done_once(tmp_path) -> None:
    picture = touch(tmp_path / "a.png")
    assert len(expand_inputs([picture, tmp_path, f"{tmp_path}/./a.png"])) == 1


def test_a_missing_file_and_an_empty_folder_are_errors_of_their_own_and_stop_no_other(tmp_path) -> None:
    empty, there = tmp_path / "empty", touch(tmp_path / "there.png")
    empty.mkdir()
    missing, none, good = expand_inputs([tmp_path / "gone.png", empty, there])
    assert isinstance(missing.error, UnreadablePictureError)
    assert "no such file" in str(missing.error)
    assert "without pictures" in str(none.error)
    assert none.error is not None
    assert none.error.hint
    assert good.error is None


def test_a_folder_that_cannot_be_listed_is_said_to_be_that(tmp_path, monkeypatch) -> None:
    touch(tmp_path / "a.png")
    listed = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    good, locked = expand_inputs([tmp_path])
    assert good.error is None
    assert "Permission denied" in str(locked.error)


def test_a_dash_is_standard_input() -> None:
    assert expand_inputs(["-"]) == [Input(name="stdin", source=None, rel=Path("stdin"))]


def test_a_path_that_no_system_can_hold_is_an_error_of_that_input_alone(tmp_path) -> None:
    (item,) = expand_inputs([tmp_path / ("n" * 300)])
    assert item.error is not None


def test_an_empty_name_is_refused_and_never_the_folder_where_one_stands(tmp_path, monkeypatch) -> None:
    touch(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    (item,) = expand_inputs([""])
    assert isinstance(item.error, UnreadablePictureError)
    assert item.error.hint
