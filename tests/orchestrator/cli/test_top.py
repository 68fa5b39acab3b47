"""``upx top``: what it looks at, what it prints where nobody sits before it, and how it leaves a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from upx.cli import top as top_verb
from upx.errors import WorkerStartError
from upx.remote import sights
from upx.remote.sights import Sight
from upx_protocol.messages import Pong

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a" * 64
ALT, MAIN, HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h"
HOME = b"\x1b[H"
DEADLINE_S = 30.0
# Who leads a session and opens a terminal is the one whom Ctrl-C there means.
SIT_DOWN = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class FakeLookout:
    """A box that does two tiles of a megapixel a second, and one that is away; ends by Ctrl-C after some looks."""

    made: list[FakeLookout]
    looks_left = 3

    def __init__(self, _settings, boxes, *, here) -> None:
        self.boxes, self.here, self.looks, self.most = [box.name for box in boxes], here, 0, []
        FakeLookout.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def look(self, *, most):
        if self.looks == FakeLookout.looks_left:
            raise KeyboardInterrupt
        self.looks += 1
        self.most.append(most)
        done = 2 * self.looks
        pong = Pong(
            1, queued=3, tiles_done=done, pixels_done=done * 1_000_000, busy_s=0.5 * self.looks, age_s=self.looks
        )
        away = WorkerStartError("gone cannot be reached", hint="is it on?")
        return [Sight("attic:7600", "span", "attic", pong=pong), Sight("gone:7600", "", "gone", error=away)]


@pytest.fixture
def lookout(monkeypatch) -> type[FakeLookout]:
    FakeLookout.made, FakeLookout.looks_left = [], 3
    monkeypatch.setattr(sights, "Lookout", FakeLookout)
    monkeypatch.setattr(top_verb.time, "sleep", lambda _: None)
    return FakeLookout


@pytest.fixture
def boxes(upx) -> None:
    for name in ("attic", "gone"):
        assert upx("worker", "add", name, "tcp://127.0.0.1:9", "--key", KEY, "--offline").code == 0


@pytest.mark.parametrize(
    ("words", "names", "here"),
    [
        ([], ["attic", "gone"], True),
        (["--on", "any"], ["attic", "gone"], True),
        (["--on", "local"], [], True),
        (["--on", "attic"], ["attic"], False),
        (["--on", "attic,local"], ["attic"], True),
    ],
)
def test_all_is_watched_unless_some_are_picked(upx, boxes, lookout, words, names, here) -> None:
    assert upx("top", "--once", *words).code == 0
    (made,) = lookout.made
    assert (made.boxes, made.here) == (names, here)


def test_a_box_that_is_not_known_is_a_wrong_request(upx) -> None:
    ended = upx("top", "--once", "--on", "attik")
    assert (ended.code, "no box is called 'attik'" in ended.err) == (2, True)


@pytest.mark.parametrize("words", [["--every", "0"], ["--every", "x"], ["--every", "inf"], ["extra"]])
def test_a_wrong_word_is_a_wrong_request(upx, words) -> None:
    assert upx("top", "--once", *words).code == 2


def test_once_is_one_table_of_what_was_done_between_two_looks(upx, boxes, lookout) -> None:
    ended = upx("top", "--once")
    head, attic, gone, total = ended.lines
    assert (ended.code, ended.err, lookout.made[0].looks) == (0, "", 2)
    cells = dict(zip(head.split(), attic.split(), strict=False))
    assert (cells["ID"], cells["QUEUE"]) == ("attic:7600", "3")
    assert attic[head.index("MP/S") :].split()[:3] == ["2", "2", "50%"]
    assert "unreachable" in gone
    assert total == "total: 2 workers (1 away), queue 3, 2 MP/s, 2 tiles/s, 50% busy"


@pytest.mark.parametrize("looks", [0, 1])
def test_once_that_is_interrupted_has_failed(upx, boxes, lookout, looks) -> None:
    lookout.looks_left = looks
    ended = upx("top", "--once")
    assert (ended.code, ended.out, "upx: interrupted" in ended.err) == (130, "", True)


def test_json_is_a_record_for_each_look_and_ctrl_c_is_no_failure(upx, boxes, lookout) -> None:
    ended = upx("top", "--json")
    first, second, third = map(json.loads, ended.lines)
    assert (ended.code, ended.err) == (0, "")
    assert (first["kind"], first["workers"][0]["megapixels_per_second"]) == ("top", None)
    assert (second["megapixels_per_second"], third["busy"], third["queue"]) == (2.0, 0.5, 3)
    assert [each["state"] for each in third["workers"]] == ["idle", "unreachable"]
    assert third["workers"][1]["message"] == "gone cannot be reached"


def test_without_a_terminal_a_table_is_printed_for_each_look(upx, boxes, lookout) -> None:
    assert sum(line.startswith("total: ") for line in upx("top").lines) == 3


def test_only_the_first_look_waits_for_long(upx, boxes, lookout) -> None:
    upx("top", "--every", "0.5")
    assert lookout.made[0].most == [top_verb.FIRST_S, 0.5, 0.5]


def test_a_reader_that_has_gone_ends_it(upx_env, tmp_path) -> None:
    command = [sys.executable, "-m", "upx", "top", "--json", "--every", "0.2"]
    env = {**upx_env, "UPX_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["workers"] == []
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read() == b""


class Seat:
    """A terminal with ``upx top`` on it, in a home without workers."""

    def __init__(self, env: dict[str, str], *, width: int, height: int) -> None:
        self.said = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self._theirs, self.before = theirs, termios.tcgetattr(theirs)
        kept = {name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SIT_DOWN, "-m", "upx", "top", "--every", "0.2"], stdin=theirs, stdout=theirs,
            stderr=theirs, env={**kept, "TERM": "xterm-256color"}, start_new_session=True,
        )  # fmt: skip

    def await_frame(self) -> None:
        until = time.monotonic() + DEADLINE_S
        while self.said.count(HOME) < 2:
            assert time.monotonic() < until, self.said
            self._read(0.1)

    def _read(self, seconds: float) -> None:
        if select.select([self._ours], [], [], seconds)[0]:
            self.said += os.read(self._ours, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def ended(self) -> int:
        until = time.monotonic() + DEADLINE_S
        while (code := self.process.poll()) is None:
            assert time.monotonic() < until, self.said
            self._read(0.1)
        self._read(0.1)
        return code

    @property
    def modes(self) -> list:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def seat(upx_env, tmp_path) -> Iterator:
    made: list[Seat] = []

    def sit(width: int = 100, height: int = 24) -> Seat:
        made.append(Seat({**upx_env, "UPX_HOME": str(tmp_path)}, width=width, height=height))
        made[-1].await_frame()
        return made[-1]

    yield sit
    for each in made:
        each.close()


@pytest.mark.parametrize("keys", [b"q", b"Q", b"xyzq", b"\x03"])
def test_q_and_ctrl_c_end_it_quietly_and_the_terminal_is_as_it_was(seat, keys) -> None:
    place = seat()
    assert place.modes != place.before, "keys come one by one"
    place.type(keys)
    assert place.ended() == 0
    assert place.modes == place.before
    assert b"Traceback" not in place.said
    assert b"interrupted" not in place.said
    for begins, ends in ((ALT, MAIN), (HIDE, SHOW)):
        assert place.said.count(begins) == place.said.count(ends) == 1
        assert place.said.index(begins) < place.said.index(ends)


def test_sigterm_gives_the_terminal_back_too(seat) -> None:
    place = seat()
    place.process.send_signal(signal.SIGTERM)
    assert place.ended() == 0
    assert place.modes == place.before
    assert MAIN in place.said
    assert SHOW in place.said


def test_ctrl_z_does_not_leave_the_shell_on_our_screen(seat) -> None:
    place = seat()
    place.type(b"\x1aq")
    assert place.ended() == 0
    assert place.modes == place.before


@pytest.mark.parametrize(("width", "height"), [(1, 1), (12, 3), (40, 10)])
def test_a_tiny_terminal_breaks_nothing(seat, width, height) -> None:
    place = seat(width, height)
    place.type(b"q")
    assert place.ended() == 0
    assert b"Traceback" not in place.said
