"""Where a trace goes: refused before any work, written however that ends, and over nothing but a trace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from upx.errors import OutOfMemoryError, OutputError, OutputPathError
from upx.pipeline import trace_file
from upx.pipeline.trace_file import keep_apart, traced
from upx.trace import this_thread


def names(path: Path) -> list[str]:
    return [event["name"] for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "i"]


def record(path: Path, name: str = "here", then=lambda: None) -> None:
    """One event, and what happens after it."""
    with traced(path) as tracer:
        assert tracer is not None
        tracer.instant(name, this_thread())
        then()


def fail() -> None:
    raise OutOfMemoryError("full")


def test_the_trace_is_there_when_the_block_has_ended_and_not_before(tmp_path) -> None:
    path = tmp_path / "trace.json"
    with traced(path) as tracer:
        tracer.instant("here", this_thread())
        assert not path.exists()
    assert names(path) == ["here"]
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_path_there_is_no_tracer(tmp_path) -> None:
    with traced(None) as tracer:
        assert tracer is None


def test_the_trace_of_work_that_fails_is_written_and_the_error_goes_on(tmp_path) -> None:
    path = tmp_path / "trace.json"
    with pytest.raises(OutOfMemoryError):
        record(path, then=fail)
    assert names(path) == ["here"]


def test_an_earlier_trace_is_replaced_unless_nothing_was_recorded(tmp_path) -> None:
    path = tmp_path / "trace.json"
    record(path, "first")
    record(path, "second")
    assert names(path) == ["second"]
    with traced(path):
        pass
    assert names(path) == ["second"]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"{}", b"[" * 100])
def test_what_is_no_trace_is_never_replaced(tmp_path, content) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(OutputPathError, match="no trace") as caught, traced(path):
        pytest.fail("work was begun")
    assert caught.value.hint
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_that_was_written_there_meanwhile_stays(tmp_path) -> None:
    path = tmp_path / "out.png"
    with pytest.raises(OutputError, match="meanwhile"):
        record(path, then=lambda: path.write_bytes(b"a picture"))
    assert path.read_bytes() == b"a picture"


@pytest.mark.parametrize("name", ["none/trace.json", ".", "-"])
def test_a_path_that_cannot_be_a_file_is_refused_before_any_work(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputPathError) as caught, traced(Path(name)):
        pytest.fail("work was begun")
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_refused_before_any_work(tmp_path, monkeypatch) -> None:
    def refuse(*_args, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputPathError, match="permission") as caught, traced(tmp_path / "trace.json"):
        pytest.fail("work was begun")
    assert "trace" in caught.value.hint


def test_a_disk_that_fills_up_loses_the_trace_and_says_so(tmp_path, monkeypatch) -> None:
    path = tmp_path / "trace.json"

    def full(*_args):
        raise OutputError("no space left")

    monkeypatch.setattr(trace_file.OutputFile, "write", full)
    with pytest.raises(OutputError, match="the trace is lost") as caught:
        record(path)
    assert (caught.value.exit_code, bool(caught.value.hint)) == (4, True)
    with pytest.raises(OutOfMemoryError):
        record(path, then=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_large_trace_is_written_in_pieces(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trace_file, "PIECE", 50)
    path = tmp_path / "trace.json"
    with traced(path) as tracer:
        for number in range(20):
            tracer.instant(f"{number}", this_thread())
    assert names(path) == [str(number) for number in range(20)]


def test_a_picture_and_the_trace_have_files_of_their_own(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep_apart(Path("trace.json"), [None, Path("out.png")])
    with pytest.raises(OutputPathError, match="both"):
        keep_apart(Path("out.png"), [None, tmp_path / "out.png"])
