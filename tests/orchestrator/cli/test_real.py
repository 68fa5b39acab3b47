"""The command with real environments and workers: the nearest backend, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upx.config import Settings
from upx.workers.registry import list_workers

DEADLINE_S = 60


@pytest.fixture(scope="module")
def home(upx_env, tmp_path_factory) -> dict[str, str]:
    """A home whose environment of nearest is shared with other tests, and whose workers are its own."""
    own = tmp_path_factory.mktemp("own")
    (own / "data").symlink_to(Path(upx_env["UPX_HOME"]) / "data", target_is_directory=True)
    Path(upx_env["UPX_HOME"], "data").mkdir(parents=True, exist_ok=True)
    return {**upx_env, "UPX_HOME": str(own)}


@pytest.fixture
def upx(home, tmp_path):
    def call(*args: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "upx", *map(str, args)]
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=DEADLINE_S, check=False, cwd=tmp_path, env=home
        )

    yield call
    stopped = call("stop", "--all", "--force")
    assert stopped.returncode == 0, stopped.stderr


@pytest.fixture
def picture(tmp_path):
    """A picture of noise, 40 wide and 30 high."""
    path = tmp_path / "in.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


def test_a_picture_is_enlarged_and_the_worker_serves_the_next_command(upx, picture, tmp_path) -> None:
    first = upx("up", "in.png", "-b", "nearest", "--json")
    assert first.returncode == 0, first.stderr
    record, _ = map(json.loads, first.stdout.splitlines())
    assert (record["out_size"], record["model"], record["output"]) == ([160, 120], "nearest-x4", "in_4x_nearest-x4.png")
    small, big = np.asarray(Image.open(picture)), np.asarray(Image.open(tmp_path / record["output"]))
    assert np.array_equal(big, small.repeat(4, axis=0).repeat(4, axis=1))

    (worker,) = map(json.loads, upx("ps", "--json").stdout.splitlines())
    assert (worker["backend"], worker["keep_alive"], worker["tied"]) == ("nearest", 300.0, False)
    second = upx("up", "in.png", "-b", "nearest", "-s", "2", "-o", "two.png", "-v")
    assert second.returncode == 0, second.stderr
    again = upx("up", "in.png", "-b", "nearest", "-o", "again.png", "-v")
    assert f"was running already, process {worker['pid']}".encode() in again.stderr
    (stopped,) = [json.loads(line) for line in upx("stop", worker["id"], "--json").stdout.splitlines()]
    assert (stopped["id"], stopped["outcome"]) == (worker["id"], "drained")


def await_busy(env: dict[str, str]) -> None:
    """Return when a worker of that home computes, so that what comes next comes midway."""
    settings, until = Settings.from_env(env), time.monotonic() + DEADLINE_S
    while not any(json.loads(info.path.read_text())["busy_since"] for info in list_workers(settings) if info.hosts):
        assert time.monotonic() < until, "nothing is computed"
        time.sleep(0.02)


def test_bad_pictures_are_told_and_the_others_are_done(upx, picture, tmp_path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "half.png").write_bytes(picture.read_bytes()[:200])
    (tmp_path / "none").mkdir()
    (tmp_path / "out").mkdir()
    names = ["words.png", "empty.png", "half.png", "none", "gone.png", "in.png"]
    ended = upx("up", *names, "-b", "nearest", "--keep-alive", "0", "-o", "out/")
    assert ended.returncode == 3
    assert ended.stdout.decode().splitlines() == [f"out{os.sep}in_4x_nearest-x4.png"]
    said = ended.stderr.decode()
    for name in names[:-1]:
        assert f"upx: {name}: " in said
    assert said.count("  → ") == 5
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in_4x_nearest-x4.png"]


def test_a_picture_goes_through_standard_input_and_output(upx, picture) -> None:
    ended = upx(
        "up", "-", "-o", "-", "-b", "nearest", "-f", "png", "--keep-alive", "0", "-q", stdin=picture.read_bytes()
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    import io

    assert Image.open(io.BytesIO(ended.stdout)).size == (160, 120)


def test_a_job_that_runs_out_of_memory_ends_with_6_and_a_worker_that_never_starts_with_7(upx, picture) -> None:
    tied = ["-b", "nearest", "--keep-alive", "0"]
    out_of_memory = upx("up", "in.png", *tied, "--set", "oom_above=1")
    assert out_of_memory.returncode == 6, out_of_memory.stderr
    lost = upx("up", "in.png", *tied, "--set", "load_fail=crash")
    assert lost.returncode == 7, lost.stderr
    for ended in (out_of_memory, lost):
        assert ended.stderr.startswith(b"upx: ")
        assert b"  \xe2\x86\x92 " in ended.stderr
        assert b"Traceback (most recent call last):\n  File" not in ended.stderr


def traced(path: Path) -> list[dict]:
    """The events of a trace, in order; those of both halves of a pair that may overlap others become one."""
    events = json.loads(path.read_text())["traceEvents"]
    ends = {event["id"]: event["ts"] for event in events if event["ph"] == "e"}
    for event in events:
        event["end"] = ends[event["id"]] if event["ph"] == "b" else event.get("ts", 0) + event.get("dur", 0)
    return [event for event in events if event["ph"] != "e"]


def assert_nested(spans: list[dict]) -> None:
    """On one row every span lies within the one that it began in, or after it; all but a nanosecond of rounding."""
    around: list[dict] = []
    for span in spans:
        while around and around[-1]["end"] <= span["ts"] + 0.002:
            around.pop()
        assert not around or span["end"] <= around[-1]["end"] + 0.002, (around[-1], span)
        around.append(span)


def test_a_trace_of_two_pictures_has_every_stage_and_every_tile(upx, picture, tmp_path) -> None:
    (tmp_path / "two.png").write_bytes(picture.read_bytes())
    words = ["-b", "nearest", "-t", "16", "-j", "2", "--keep-alive", "0", "--set", "delay=0.02"]
    ended = upx("up", "in.png", "two.png", *words, "--json", "--trace", "trace.json")
    assert ended.returncode == 0, ended.stderr
    *records, _ = map(json.loads, ended.stdout.splitlines())
    events = traced(tmp_path / "trace.json")
    spans = [event for event in events if event["ph"] == "X"]
    for row in {event["tid"] for event in spans}:
        assert_nested([event for event in spans if event["tid"] == row])
    pictures = {event["args"]["input"]: event for event in spans if event["name"] == "picture"}
    assert len(pictures) == len(records) == 2
    for record in records:
        whole = pictures[record["input"]]
        own = [event for event in events if event.get("args", {}).get("picture") == whole["args"]["picture"]]
        assert all(whole["ts"] <= event["ts"] and event["end"] <= whole["end"] + 0.002 for event in own)
        assert (whole["end"] - whole["ts"]) / 1e6 == pytest.approx(record["seconds"], abs=0.1)
        for stage in ("decode", "start", "tile", "wait", "stitch", "encode"):
            took = sum(event["dur"] for event in own if event["name"] == stage) / 1e6
            assert took == pytest.approx(record["stages"][stage], abs=0.0002), stage
        for name in ("queue", "wire", "inference"):
            parts = [event for event in own if event["name"] == name and "back" not in event["args"]]
            assert sorted(tile for event in parts for tile in event["args"]["tiles"]) == list(range(record["tiles"]))
            assert all(event["args"]["attempt"] == 0 for event in parts)
        computed = sum(event["args"]["seconds"] for event in own if event["name"] == "inference")
        assert computed == pytest.approx(record["stages"]["inference"], abs=0.001)
        for event in (event for event in own if event["name"] == "inference"):
            out = [e for e in own if e["ph"] == "b" and "back" not in e["args"]]
            way = {e["name"]: e for e in out if e["args"]["batch"] == event["args"]["batch"]}
            assert way["queue"]["ts"] <= way["queue"]["end"] == way["wire"]["ts"]
            assert way["wire"]["end"] == pytest.approx(event["ts"], abs=0.002)
            # The worker measured it, and it is drawn so even where the host heard late.
            assert event["args"]["seconds"] >= 0.02
            assert event["dur"] / 1e6 == pytest.approx(event["args"]["seconds"], abs=1e-5)


def test_the_rows_of_a_trace_are_the_threads_and_the_workers(upx, picture, tmp_path) -> None:
    ended = upx("up", "in.png", "-b", "nearest", "--keep-alive", "0", "--trace", "trace.json")
    assert ended.returncode == 0, ended.stderr
    events = traced(tmp_path / "trace.json")
    named = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    rows = {(event["pid"], named[event["tid"]], event["name"]) for event in events if event["ph"] in "Xb"}
    (worker,) = {event["args"]["worker"] for event in events if event["name"] == "inference"}
    assert rows >= {(1, "MainThread", "prepare"), (1, "upx-picture_0", "decode"), (1, "upx-nearest", "queue")}
    assert {(name, what) for pid, name, what in rows if pid == 2} == {(worker, "start"), (worker, "inference")}


def test_the_trace_of_a_picture_that_fails_says_how(upx, picture, tmp_path) -> None:
    words = ["-b", "nearest", "--keep-alive", "0", "--set", "oom_above=1"]
    ended = upx("up", "in.png", *words, "--trace", "trace.json")
    assert ended.returncode == 6, ended.stderr
    events = traced(tmp_path / "trace.json")
    assert [e["args"]["error"] for e in events if e["name"] == "picture"] == ["OutOfMemoryError"]
    assert {event["args"]["outcome"] for event in events if "outcome" in event.get("args", ())} == {"oom"}


def test_a_trace_that_cannot_be_written_is_refused_before_anything_is_built(upx_env, picture, tmp_path) -> None:
    env = {**upx_env, "UPX_HOME": str(tmp_path / "fresh")}
    command = [sys.executable, "-m", "upx", "up", "in.png", "-b", "nearest", "--trace", "none/trace.json"]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.startswith(b"upx: none/trace.json: its folder is not there")
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_half_picture_and_the_detached_worker(upx, home, picture, tmp_path, number) -> None:
    slow = ["-b", "nearest", "-t", "16", "--set", "delay=0.3", "-o", "slow.png"]
    command = subprocess.Popen(
        [sys.executable, "-m", "upx", "up", "in.png", *slow, "-v", "--trace", "trace.json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=home,
    )  # fmt: skip
    assert command.stderr is not None
    for line in command.stderr:
        if b"ready on cpu" in line:
            break
    await_busy(home)
    began = time.monotonic()
    command.send_signal(number)
    _, said = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 130
    assert time.monotonic() - began < 10
    assert b"upx: interrupted" in said
    assert b"Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "trace.json"]
    assert [e["args"]["error"] for e in traced(tmp_path / "trace.json") if e["name"] == "picture"] == ["CancelledError"]
    (worker,) = map(json.loads, upx("ps", "--json").stdout.splitlines())
    assert worker["tied"] is False


def test_the_environments_are_listed_checked_and_mended(upx) -> None:
    assert upx("setup", "nearest").returncode == 0
    (entry,) = [
        each for each in map(json.loads, upx("env", "list", "--json").stdout.splitlines()) if each["name"] == "nearest"
    ]
    assert entry["state"] == "complete"
    doctor = upx("doctor", "--json")
    checks = [json.loads(line) for line in doctor.stdout.splitlines()]
    assert {check["name"] for check in checks} >= {"python", "uv", "data", "sockets", "backend nearest", "workers"}
    assert next(check for check in checks if check["name"] == "environment nearest")["status"] == "ok"


def test_a_model_is_warmed_and_the_machine_is_measured(upx) -> None:
    warmed = upx("warm", "nearest", "--json")
    assert warmed.returncode == 0, warmed.stderr
    assert json.loads(warmed.stdout)["keep_alive"] == 300.0
    assert len(upx("ps", "--json").stdout.splitlines()) == 1
    measured = upx("bench", "-b", "nearest", "--size", "64", "--repeat", "1", "--json")
    assert measured.returncode == 0, measured.stderr
    rows = [json.loads(line) for line in measured.stdout.splitlines()]
    assert rows
    assert all(row["megapixels_per_second"] > 0 and 0.9 < sum(row["stages"].values()) < 1.1 for row in rows)


def test_an_interrupt_while_an_environment_is_built_leaves_none_behind(upx_env, picture, tmp_path) -> None:
    home = tmp_path / "fresh"
    env = {**upx_env, "UPX_HOME": str(home)}
    command = subprocess.Popen(
        [sys.executable, "-m", "upx", "up", "in.png", "-b", "nearest"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=env,
    )  # fmt: skip
    assert command.stderr is not None
    assert b"environment" in command.stderr.readline()
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 130
    assert b"Traceback" not in said
    venvs = home / "data" / "venvs"
    assert [path for path in venvs.iterdir() if path.is_dir()] == []
    assert not (tmp_path / "in_4x_nearest-x4.png").exists()
