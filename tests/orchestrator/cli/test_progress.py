"""Counting, estimating, and what is seen of it."""

from __future__ import annotations

import io
import os
import sys
import threading
import time

import pytest

from upx.assets.fetch import FetchProgress
from upx.cli import _progress
from upx.cli._bar import left_text
from upx.cli._console import Console
from upx.cli._events import tell
from upx.cli._meter import Meter
from upx.cli._progress import Display
from upx.result import JobProgress
from upx.specs import Capabilities, SizeRequirements
from upx.venvs.venv import Progress
from upx.workers import events


def test_nobody_knows_the_end_before_the_first_tile() -> None:
    meter = Meter(1)
    assert meter.eta(0.0) is None
    meter.update(0, 0, 10, 0.0)
    assert meter.eta(0.0) is None


def test_the_estimate_is_tiles_left_times_seconds_per_tile() -> None:
    meter = Meter(1)
    for done in range(5):
        meter.update(0, done, 10, done * 2.0)
    assert meter.eta(8.0) == pytest.approx(12.0)
    assert meter.eta(9.0) == pytest.approx(11.0)


def test_the_estimate_follows_when_tiles_become_slower() -> None:
    meter = Meter(1)
    now = 0.0
    for done in range(11):
        meter.update(0, done, 100, now)
        now += 1.0
    for done in range(11, 41):
        now += 4.0
        meter.update(0, done, 100, now)
    assert meter.seconds_per_tile == pytest.approx(4.0, rel=0.02)


def test_pictures_that_are_not_begun_count_as_many_tiles_as_the_others() -> None:
    meter = Meter(3)
    for done in range(5):
        meter.update(0, done, 4, float(done))
    meter.finish(0)
    assert meter.eta(4.0) == pytest.approx(8.0)


def test_two_pictures_at_once_share_the_rate() -> None:
    meter = Meter(2)
    meter.update(0, 0, 4, 0.0)
    meter.update(1, 0, 4, 0.0)
    for step in range(1, 5):
        meter.update(0, step, 4, step - 0.5)
        meter.update(1, step, 4, float(step))
    assert meter.seconds_per_tile == pytest.approx(0.5)
    assert meter.eta(4.0) == 0.0


def test_a_picture_that_starts_over_with_smaller_tiles_is_estimated_anew() -> None:
    meter = Meter(1)
    meter.update(0, 0, 4, 0.0)
    meter.update(0, 1, 4, 1.0)
    meter.update(0, 0, 16, 2.0)
    meter.update(0, 1, 16, 3.0)
    assert meter.eta(3.0) == pytest.approx(15 * meter.seconds_per_tile)


def test_time_left_is_in_words() -> None:
    assert left_text(None) == ""
    assert left_text(35.2) == ", about 35 s left"
    assert left_text(185.0) == ", about 3 min 05 s left"


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """``terminal()``: standard error is one from now on; called in the test, since pytest sets its own before it."""

    def put_there() -> Terminal:
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(_progress, "BAR_AFTER_S", 0.0)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "120")
        return screen

    return put_there


def test_a_terminal_gets_a_bar_with_stage_tiles_and_time_left_which_is_taken_away(terminal, capsys) -> None:
    screen = terminal()
    console = Console()
    with Display(console, pictures=1) as display:
        for done in range(4):
            display.progress(0, "a.png", JobProgress("inference", done, 8))
        assert display._bar is not None
        display._bar._rich.refresh()
        console.raw("a line beside the bar")
        display.finish(0)
    shown = screen.getvalue()
    assert "a.png: enlarging" in shown
    assert "3/8 tiles, about 1 s left" in shown
    assert "a line beside the bar\n" in shown
    assert capsys.readouterr().out == ""
    assert console.before is console.after


def test_a_build_on_a_terminal_is_a_bar_too(terminal) -> None:
    screen = terminal()
    with Display(Console()) as display:
        display.event(Progress("download", "fetching numpy", 10, 40, "bytes"))
        assert display._bar is not None
        display._bar._rich.refresh()
        display.progress(0, "a.png", JobProgress("decode"))
        display._bar._rich.refresh()
    assert "environment: fetching numpy" in screen.getvalue()
    assert "25%" in screen.getvalue()
    assert "a.png: reading" in screen.getvalue()


def test_downloads_on_a_terminal_have_a_bar_each_and_one_for_all(terminal) -> None:
    screen = terminal()
    with Display(Console()) as display:
        for done in (1 << 20, 2 << 20):
            for name in ("a.bin", "b.bin"):
                display.event(FetchProgress(name, f"m: {name}", done, 4 << 20, 0, "fetching"))
        assert display._bar is not None
        display._bar._rich.refresh()
        for name in ("a.bin", "b.bin"):
            display.event(FetchProgress(name, f"m: {name}", 4 << 20, 4 << 20, 0, "done"))
        assert not display._bar._rich.tasks
    shown = screen.getvalue()
    assert all(name in shown for name in ("m: a.bin", "m: b.bin", "2 files", "50%"))


def test_no_color_is_honoured_on_a_terminal(terminal, monkeypatch) -> None:
    screen = terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    with Display(Console(), pictures=1) as display:
        display.progress(0, "a.png", JobProgress("inference", 1, 8))
    assert "\x1b[3" not in screen.getvalue()


def test_quiet_shows_nothing_even_on_a_terminal(terminal) -> None:
    screen = terminal()
    with Display(Console(quiet=True), pictures=1) as display:
        display.event(Progress("install", "5 packages"))
        display.progress(0, "a.png", JobProgress("inference", 1, 8))
    assert screen.getvalue() == ""


def test_what_ends_soon_shows_no_bar(terminal, monkeypatch) -> None:
    screen = terminal()
    monkeypatch.setattr(_progress, "BAR_AFTER_S", 60.0)
    with Display(Console(), pictures=1) as display:
        display.progress(0, "a.png", JobProgress("inference", 1, 8))
    assert screen.getvalue() == ""


def test_a_tile_that_takes_long_still_lets_lines_come(monkeypatch, capsys) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.02)
    monkeypatch.setattr(_progress, "TICK_S", 0.01)
    with Display(Console(), pictures=1) as display:
        display.progress(0, "a.png", JobProgress("inference", 1, 8))
        deadline = time.monotonic() + 10
        said = ""
        while said.count("upx: a.png: enlarging, 1/8 tiles") < 3 and time.monotonic() < deadline:
            said += capsys.readouterr().err
            time.sleep(0.01)
    assert said.count("upx: a.png: enlarging, 1/8 tiles") >= 3


def test_a_line_that_comes_after_the_end_does_not_bring_the_bar_back(terminal) -> None:
    screen = terminal()
    console = Console()
    display = Display(console, pictures=1)
    display.progress(0, "a.png", JobProgress("inference", 1, 8))
    late = console.after
    display.close()
    late()
    display.progress(0, "a.png", JobProgress("inference", 2, 8))
    assert "2/8" not in screen.getvalue()
    assert not [thread for thread in threading.enumerate() if thread.name == "upx-progress"]


def test_every_report_of_a_pool_has_words() -> None:
    able = Capabilities(4, SizeRequirements(), "cpu")
    reports = {
        events.WorkerStarting("w", 7): "w: started, process 7",
        events.WorkerAdopted("w", 7): "w: was running already, process 7",
        events.WorkerReady("w", able, 1.5): "w: ready on cpu after 1.50 s",
        events.WorkerDied("w", "signal 9"): "w: died: signal 9",
        events.WorkerEvicted("w", "span"): "w: asked to leave, its memory is needed (span)",
        events.TileRequeued("w", 1, 2, alone=True): "w: 2 tiles of job 1 tried again, each by itself",
        events.LogLine("w", "warning", "hot"): "w: warning: hot",
    }
    for event, words in reports.items():
        assert tell(event).words == words
        assert not tell(event).state
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)}
    assert kinds - {events.Event, events.LoadProgress} == {type(event) for event in reports}
    loading = tell(events.LoadProgress("w", "weights", 1.0, 4.0))
    assert (loading.words, loading.share, loading.state) == ("loading the model: weights", 0.25, True)


def test_a_name_that_is_no_unicode_is_printed_byte_for_byte(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    name = os.fsdecode(b"caf\xe9.png")
    Console().line(name)
    assert raw.getvalue() == b"caf\xe9.png\n"
