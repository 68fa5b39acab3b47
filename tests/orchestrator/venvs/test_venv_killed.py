from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from venv_kit import House, Index, make_settings

from upx.venvs.builder import EnvBuilder
from upx.venvs.venv import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.specs import EnvSpec

HOST = Path(__file__).with_name("venv_host.py")


def start(house: House, spec: EnvSpec, *, index: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, str(HOST), str(house.root), str(spec.lock), *([index] if index else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.01)


def end(host: subprocess.Popen[str], how: int) -> None:
    host.send_signal(how)
    host.wait(timeout=20)
    assert host.stdout is not None
    host.stdout.close()


@pytest.mark.parametrize("stage", ["python", "resolve", "install", "check", "done"])
def test_after_a_kill_at_any_stage_the_next_setup_has_a_whole_environment(
    stage: str, house: House, builder: EnvBuilder
):
    spec = house.spec()
    host = start(house, spec)
    assert host.stdout is not None
    for line in host.stdout:
        if line.split() == ["stage", stage]:
            break
    end(host, signal.SIGKILL)
    venv = builder.ensure(spec)
    assert builder.check(venv, hashes=True) == []
    assert len([each for each in builder.list_envs() if each.state == "complete"]) == 1


def test_uv_left_running_by_a_killed_host_writes_into_nothing_that_is_used(house: House, builder: EnvBuilder):
    spec = house.spec()
    with Index(house, "stall") as index:
        host = start(house, spec, index=index.url)
        assert index.stalled.wait(20)
        uv = psutil.Process(host.pid).children(recursive=True)
        assert uv
        end(host, signal.SIGKILL)
        assert all(each.is_running() for each in uv)
        left = [each.folder for each in builder.list_envs()]
        assert [each.state for each in builder.list_envs()] == ["building"]
        venv = builder.ensure(spec)
        assert left[0].exists(), "a folder was swept while uv still worked in it"
        index.go_on.set()
        wait_for(lambda: not any(each.is_running() for each in uv), "end of uv")
    assert builder.check(venv, hashes=True) == []
    pruned = builder.prune()
    assert [each.folder for each in pruned.removed] == left
    assert [each.folder for each in builder.list_envs()] == [venv.folder]


def test_ctrl_c_ends_uv_and_removes_the_build_folder(house: House, builder: EnvBuilder):
    spec = house.spec()
    with Index(house, "stall") as index:
        command = [sys.executable, str(HOST), str(house.root), str(spec.lock), index.url]
        host = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert index.stalled.wait(20)
        uv = psutil.Process(host.pid).children(recursive=True)
        assert uv
        os.kill(host.pid, signal.SIGINT)
        assert "KeyboardInterrupt" in host.communicate(timeout=20)[1]
        assert not any(each.is_running() for each in uv)
    assert builder.list_envs() == []
    assert not list((house.root / "data" / "venvs").glob(".building-*"))


def test_a_build_that_waits_for_another_says_so_and_takes_its_environment(house: House):
    spec, seen = house.spec(), list[Progress]()
    with Index(house, "stall") as index:
        host = start(house, spec, index=index.url)
        assert index.stalled.wait(20)

        def on_progress(progress: Progress) -> None:
            seen.append(progress)
            index.go_on.set()

        venv = EnvBuilder(make_settings(house.root)).ensure(spec, on_progress=on_progress)
        assert host.communicate(timeout=20)[0].splitlines()[-1] == str(venv.folder)
    assert [step.stage for step in seen] == ["wait"]
