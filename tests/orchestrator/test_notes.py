"""Notes: small files that are whole or absent, and never trusted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from upx.notes import read_note, write_note


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "folder" / "note.json"
    write_note(path, {"a": [1, {"b": None}]})
    assert read_note(path) == {"a": [1, {"b": None}]}
    assert names(path.parent) == ["note.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"5", b'"x"', b'{"a"', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_object_reads_as_nothing(tmp_path, content):
    path = tmp_path / "note.json"
    path.write_bytes(content)
    assert read_note(path) == {}


def test_what_is_not_there_or_not_a_file_reads_as_nothing(tmp_path):
    assert read_note(tmp_path / "absent" / "note.json") == {}
    assert read_note(tmp_path) == {}


def test_a_write_that_fails_leaves_nothing(tmp_path):
    target = tmp_path / "note.json"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_note(target, {})
    assert names(tmp_path) == ["note.json"]


def test_writers_at_the_same_time_leave_one_whole_note(tmp_path):
    path = tmp_path / "note.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_note(path, {"by": number, "fill": "x" * 5000}), range(64)))
    assert len(read_note(path)["fill"]) == 5000
    assert names(tmp_path) == ["note.json"]
