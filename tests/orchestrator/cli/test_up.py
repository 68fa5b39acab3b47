"""``upx up``: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes import FAILURES

from upx.cli import _progress
from upx.errors import EnvBuildError, NetworkError
from upx.trace import Tracer
from upx.venvs.venv import Progress

SUMMARY_KEYS = ["schema", "kind", "done", "skipped", "failed", "seconds", "exit_code"]


def records(ended) -> list[dict]:
    return [json.loads(line) for line in ended.lines]


def test_written_paths_are_printed_in_the_order_of_the_inputs(upx, picture) -> None:
    picture("a.png", b"late")
    picture("b.png")
    picture("c.png")
    ended = upx("up", "a.png", "b.png", "c.png")
    assert ended.code == 0
    assert ended.lines == ["a_4x_span-x4.png", "b_4x_span-x4.png", "c_4x_span-x4.png"]
    assert Path("a_4x_span-x4.png").read_bytes() == b"big late"


def test_options_reach_the_request_and_the_job(upx, host, picture) -> None:
    picture("a.png")
    words = "-b span -s 2 -d cuda:1 --precision fp16 -t 64 --overlap 8 --seed 3 --set delay=0.5 -f jpg --quality 90"
    assert (
        upx("up", "a.png", *words.split(), "-j", "2", "--keep-alive", "2h", "--offline", "--accept-licence").code == 0
    )
    (request,), (options,) = host.requests, host.options
    assert (request.backend, request.scale, request.device, request.precision) == ("span", 2, "cuda:1", "fp16")
    assert (request.workers, request.keep_alive, request.params) == (2, 7200.0, {"delay": "0.5"})
    assert request.accept_licence
    assert host.offline
    assert (options.tile, options.overlap, options.seed) == (64, 8, 3)
    assert (options.format, options.quality) == ("jpeg", 90)
    assert Path("a_2x_span-x2.jpg").exists()


def test_without_options_a_worker_stays_five_minutes_and_all_is_automatic(upx, host, picture) -> None:
    picture("a.png")
    upx("up", "a.png")
    (request,) = host.requests
    assert (request.workers, request.keep_alive, request.device) == (0, 300.0, "auto")
    assert host.options[0].tile == 0


def test_json_prints_a_record_a_picture_and_a_summary(upx, picture) -> None:
    picture("a.png", b"warn")
    ended = upx("up", "a.png", "--json")
    done, summary = records(ended)
    assert (done["kind"], done["status"], done["input"], done["output"]) == (
        "picture",
        "done",
        "a.png",
        "a_4x_span-x4.png",
    )
    assert done["warnings"] == ["a palette was converted"]
    assert list(summary) == SUMMARY_KEYS
    assert (summary["done"], summary["exit_code"]) == (1, 0)


def test_one_bad_picture_stops_no_other(upx, picture) -> None:
    picture("a.png")
    picture("b.png", b"bad")
    picture("c.png")
    ended = upx("up", "a.png", "b.png", "gone.png", "c.png")
    assert ended.code == 3
    assert ended.lines == ["a_4x_span-x4.png", "c_4x_span-x4.png"]
    assert "upx: b.png: not a picture\n  → give a picture\n" in ended.err
    assert "upx: gone.png: no such file\n" in ended.err
    assert "2 done, 2 failed" in ended.err
    assert "Traceback" not in ended.err
    assert not Path("b_4x_span-x4.png").exists()


@pytest.mark.parametrize(
    ("contents", "code"),
    [
        (["bad"], 4),
        (["bad", "poison"], 4),
        (["oom", "oom"], 6),
        (["lost"], 7),
        (["lost", "oom"], 4),
        (["oom", "fine"], 3),
        (["bug"], 1),
        (["bug", "bad"], 4),
        (["fine", "fine"], 0),
    ],
)
def test_the_exit_code_says_how_many_failed_and_why(upx, picture, contents, code) -> None:
    names = [picture(f"{number}.png", content.encode()).name for number, content in enumerate(contents)]
    assert upx("up", *names).code == code


def test_a_failed_picture_has_its_error_in_its_record(upx, picture) -> None:
    picture("a.png", b"oom")
    failed, summary = records(upx("up", "a.png", "--json"))
    assert failed["status"] == "failed"
    assert failed["output"] is None
    assert failed["error"] == {"code": "OutOfMemory", "message": str(FAILURES[b"oom"]), "hint": "-d cpu"}
    assert (failed["backend"], failed["model"], failed["scale"]) == ("span", "span-x4", 4)
    assert (summary["failed"], summary["exit_code"]) == (1, 6)


def test_a_bug_is_one_line_and_its_traceback_is_for_those_who_ask(upx, picture) -> None:
    picture("a.png", b"bug")
    plain = upx("up", "a.png")
    assert "upx: a.png: unexpected ZeroDivisionError: a bug of ours\n  → -v shows where" in plain.err
    assert "Traceback" not in plain.err
    assert "Traceback" in upx("up", "a.png", "-v").err


def test_nothing_is_set_up_when_no_input_can_be_read(upx, host) -> None:
    ended = upx("up", "gone.png", "gone too.png")
    assert ended.code == 4
    assert host.prepared == 0


def test_a_backend_that_is_not_ready_ends_the_command_before_any_picture(upx, host, picture) -> None:
    picture("a.png")
    host.not_ready = NetworkError("the index cannot be reached", hint="--offline", log="uv said so")
    ended = upx("up", "a.png", "--json")
    assert ended.code == 5
    assert ended.err == "upx: the index cannot be reached\n  → --offline\n"
    (failure,) = records(ended)
    assert (failure["kind"], failure["code"], failure["exit_code"]) == ("error", "Network", 5)
    assert host.sessions[0].ran == []
    assert "uv said so" in upx("up", "a.png", "-v").err


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["-b", "spam"], "no backend or model is called 'spam'", "did you mean span"),
        (["-n", "span-x4", "-s", "3"], "no scale 3 here", "enlarges by 2, 4"),
        (["-t", "0"], "--tile 0", "off"),
        (["-t", "big"], "--tile big", "off"),
        (["-j", "many"], "--workers many", "auto"),
        (["-d", "gpu"], "'gpu'", "cuda"),
        (["--keep-alive", "soon"], "--keep-alive soon", "forever"),
        (["--set", "delay"], "--set delay", "backends info"),
        (["--quality", "200"], "quality of 200", "1 to 100"),
        (["-f", "tiff"], "tiff", "png"),
        (["-o", "no/such/folder/"], "no/such/folder is no folder", "mkdir -p"),
        (["-o", "no/such/x.png"], "no/such is no folder", "mkdir -p"),
        (["-o", "{stam}.png"], "{stam}", "stem"),
        (["--scale", "big"], "'big'", "--help"),
        (["--on-exists", "maybe"], "'maybe'", "--help"),
        (["--formaat", "png"], "no such option: --formaat", "did you mean --format?"),
    ],
)
def test_a_wrong_request_ends_in_one_line_with_the_next_step(upx, host, picture, words, said, hint) -> None:
    picture("a.png")
    ended = upx("up", "a.png", *words)
    assert ended.code == 2
    what, step = ended.err.splitlines()
    assert what.startswith("upx: ")
    assert said in what
    assert step.startswith("  → ")
    assert hint in step
    assert ended.out == ""
    assert host.prepared == 0


def test_no_inputs_are_a_usage_error(upx) -> None:
    ended = upx("up")
    assert ended.code == 2
    assert "missing argument 'INPUT...'" in ended.err


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(upx, host, picture, monkeypatch) -> None:
    picture("a.png")
    Path("out").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path).name != "out")
    ended = upx("up", "a.png", "-o", "out/")
    assert ended.code == 2
    assert "out cannot be written to" in ended.err
    assert host.prepared == 0


def test_a_tree_is_mirrored_below_the_output_folder(upx, picture) -> None:
    picture("in/a.png")
    picture("in/sub/deep/b.png")
    Path("out").mkdir()
    ended = upx("up", "in", "-o", "out")
    assert ended.lines == [f"out{os.sep}a_4x_span-x4.png", f"out{os.sep}sub{os.sep}deep{os.sep}b_4x_span-x4.png"]
    assert Path("out/sub/deep/b_4x_span-x4.png").exists()


def test_a_folder_done_twice_does_not_enlarge_its_own_results(upx, host, picture) -> None:
    picture("in/a.png")
    upx("up", "in")
    assert upx("up", "in").lines == [f"in{os.sep}a_4x_span-x4.png"]
    assert host.sessions[-1].ran == ["fine"]


def test_skipped_pictures_count_as_done_and_set_nothing_up(upx, host, picture) -> None:
    picture("a.png")
    picture("a_4x_span-x4.png", b"old")
    ended = upx("up", "a.png", "--on-exists", "skip", "--json")
    skipped, summary = records(ended)
    assert ended.code == 0
    assert (skipped["status"], skipped["output"]) == ("skipped", "a_4x_span-x4.png")
    assert summary["skipped"] == 1
    assert host.prepared == 0
    assert Path("a_4x_span-x4.png").read_bytes() == b"old"


def test_outputs_that_exist_can_be_renamed_or_refused(upx, picture) -> None:
    picture("a.png")
    picture("a_4x_span-x4.png", b"old")
    assert upx("up", "a.png", "--on-exists", "rename").lines == ["a_4x_span-x4_2.png"]
    refused = upx("up", "a.png", "--on-exists", "error")
    assert refused.code == 2
    assert "a_4x_span-x4.png exists" in refused.err


def test_a_template_may_ask_for_the_hash_of_the_input(upx, picture, photograph) -> None:
    picture("a.png", photograph.read_bytes())
    ended = upx("up", "a.png", "-o", "{hash}_{width}x{height}{ext}")
    import hashlib

    digest = hashlib.sha256(photograph.read_bytes()).hexdigest()[:12]
    assert ended.lines == [f"{digest}_2400x1600.png"]


def test_standard_output_gets_the_picture_and_nothing_else(upx, picture) -> None:
    picture("a.png")
    ended = upx("up", "a.png", "-o", "-")
    assert (ended.code, ended.out) == (0, "big fine")


def test_standard_input_is_a_picture(upx, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fine")))
    ended = upx("up", "-", "-o", "out.png", "--json")
    assert records(ended)[0]["input"] == "stdin"
    assert Path("out.png").read_bytes() == b"big fine"


def test_records_and_a_picture_do_not_share_standard_output(upx, picture) -> None:
    picture("a.png")
    ended = upx("up", "a.png", "-o", "-", "--json")
    assert ended.code == 2
    assert "share standard output" in ended.err


def test_warnings_are_told_on_standard_error_unless_quiet(upx, picture) -> None:
    picture("a.png", b"warn")
    assert "upx: a.png: a palette was converted" in upx("up", "a.png").err
    quiet = upx("up", "a.png", "-q")
    assert quiet.err == ""
    assert quiet.lines == ["a_4x_span-x4.png"]


def test_setting_up_is_told_as_it_goes(upx, host, picture) -> None:
    picture("a.png")
    host.events = (Progress("install", "5 packages", 1, 5, "packages"), "a worker's word")
    ended = upx("up", "a.png")
    assert "upx: environment: 5 packages" in ended.err
    assert "a worker's word" not in ended.err
    assert "a worker's word" in upx("up", "a.png", "-v").err


def test_without_a_terminal_a_line_comes_every_few_seconds(upx, picture, monkeypatch) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    picture("a.png")
    assert "upx: a.png: enlarging, 4/4 tiles, about" in upx("up", "a.png").err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_tells_what_is_whole_and_ends_with_130(upx, host, picture, number) -> None:
    from upx.__main__ import Interrupts

    picture("a.png")
    picture("b.png", b"endless")
    picture("c.png")
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def interrupt() -> None:
        while not host.sessions or "endless" not in host.sessions[0].ran:
            pass
        os.kill(os.getpid(), number)

    Interrupts().install()
    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    try:
        ended = upx("up", "a.png", "b.png", "c.png")
    finally:
        thread.join()
        for name, handler in before.items():
            signal.signal(name, handler)
    assert ended.code == 130
    assert time.monotonic() - began < 5
    assert host.sessions[0].cancelled.is_set()
    assert host.sessions[0].closed
    assert "upx: interrupted" in ended.err
    assert "a_4x_span-x4.png" in ended.lines
    assert not Path("b_4x_span-x4.png").exists()


def test_a_not_ready_error_of_every_kind_carries_its_log(upx, host, picture) -> None:
    picture("a.png")
    host.not_ready = EnvBuildError("no such version", hint="x", log="because")
    assert upx("up", "a.png").code == 5


def test_a_wrong_use_of_every_picture_ends_with_2(upx, picture) -> None:
    picture("a.png", b"small tile")
    picture("b.png", b"small tile")
    assert upx("up", "a.png", "b.png").code == 2
    picture("c.png")
    assert upx("up", "a.png", "c.png").code == 3


@pytest.mark.parametrize(("how", "code", "status"), [("skip", 0, "skipped"), ("error", 4, "failed")])
def test_an_output_that_somebody_else_wrote_meanwhile_is_left_alone(upx, picture, how, code, status) -> None:
    picture("a.png", b"taken")
    ended = upx("up", "a.png", "--on-exists", how, "--json")
    assert ended.code == code
    assert records(ended)[0]["status"] == status


def test_a_file_where_the_output_folder_would_be_is_said_to_be_one(upx, picture) -> None:
    picture("a.png")
    picture("taken")
    ended = upx("up", "a.png", "-o", "taken/")
    assert ended.code == 2
    assert "taken is a file, no folder" in ended.err


def test_a_trace_without_its_file_s_name_costs_no_picture(upx, host, picture) -> None:
    first = picture("a.png")
    picture("b.png")
    ended = upx("up", "--trace", "a.png", "b.png")
    assert (ended.code, ended.out) == (2, "")
    assert "a.png: is there already, and is no trace" in ended.err
    assert first.read_bytes() == b"fine"
    assert host.prepared == 0


def test_a_picture_and_the_trace_cannot_have_one_file(upx, host, picture, tmp_path) -> None:
    picture("a.png")
    ended = upx("up", "a.png", "-o", "big.png", "--trace", tmp_path / "big.png")
    assert ended.code == 2
    assert "both a picture and the trace" in ended.err
    assert (host.prepared, sorted(path.name for path in tmp_path.iterdir())) == (0, ["a.png"])


@pytest.mark.parametrize(("content", "code"), [(b"fine", 0), (b"oom", 6), (b"bug", 1)])
def test_a_trace_is_written_whatever_becomes_of_the_picture(upx, picture, tmp_path, content, code) -> None:
    picture("a.png", content)
    ended = upx("up", "a.png", "--trace", "t.json")
    assert ended.code == code
    names = [event["name"] for event in json.loads((tmp_path / "t.json").read_text())["traceEvents"]]
    assert "prepare" in names


def test_a_request_that_is_wrong_leaves_an_earlier_trace_as_it_was(upx, picture, tmp_path) -> None:
    picture("a.png")
    upx("up", "a.png", "--trace", "t.json")
    before = (tmp_path / "t.json").read_bytes()
    assert upx("up", "a.png", "-b", "nobody", "--trace", "t.json").code == 2
    assert (tmp_path / "t.json").read_bytes() == before


def test_a_trace_that_was_full_is_told(upx, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("upx.pipeline.trace_file.Tracer", lambda: Tracer(most=0))
    picture("a.png")
    ended = upx("up", "a.png", "--trace", "t.json")
    assert (ended.code, (tmp_path / "t.json").exists()) == (0, True)
    assert "lacks its last 1 events" in ended.err
