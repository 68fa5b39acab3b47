"""Other platforms, as far as they can be simulated: no pidfd, no /proc, no ipc, Windows' way to start a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq
from worker_kit import enlarged, gone_within, noise, until

from upx.errors import WorkerError
from upx.private_files import changing, read_private
from upx.workers import channel, endpoints, events, lifecycle, logs, machine, process, windows


@pytest.fixture
def no_pidfd(monkeypatch):
    monkeypatch.setattr(process, "_pidfd", lambda _pid: -1)


@pytest.mark.usefixtures("no_pidfd")
def test_without_pidfd_a_death_is_seen_and_a_worker_is_adopted_all_the_same(open_pool, plan) -> None:
    detached = replace(plan, keep_alive=60.0)
    first = open_pool(detached)
    futures = [first.submit(noise(seed), delay=0.1)[0] for seed in range(3)]
    os.kill(first.in_flight(), signal.SIGKILL)
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(seed)))
    second = open_pool(detached)
    futures = [second.submit(noise(seed), delay=0.1)[0] for seed in range(3)]
    os.kill(second.in_flight(), signal.SIGKILL)
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(seed)))
    assert len(second.of(events.WorkerAdopted)) >= 1


def test_without_proc_nothing_is_known_and_nothing_breaks(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    machine.boot_id.cache_clear()
    try:
        assert machine.boot_id() == "boot"
    finally:
        machine.boot_id.cache_clear()
    assert (machine.start_ticks(1), machine.resident_bytes(1), machine.available_memory()) == (0, 0, 0)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        found = process.adopt(child.pid, 0)
        assert found is not None
        assert not found.ended()
        found.kill()
        assert child.wait(10) == -signal.SIGKILL
        assert any(found.ended() for _ in until(2))
        found.release()
    assert process.adopt(child.pid, 0) is None


def test_where_ipc_is_missing_the_loopback_is_used(monkeypatch) -> None:
    assert channel.default_transport() == "ipc"
    monkeypatch.setattr(zmq, "has", lambda what: what != "ipc")
    assert channel.default_transport() == "tcp"


def test_a_host_without_the_right_keys_is_not_let_in(open_pool, plan, settings) -> None:
    detached = replace(plan, keep_alive=60.0)
    first = open_pool(detached, transport="tcp")
    first.up(noise(1))
    first.pool.close()
    client = settings.state_dir / "curve" / "client.json"
    public, secret = channel.new_key_pair()
    client.write_text(f'{{"public": "{public}", "secret": "{secret}"}}')
    stranger = open_pool(detached, transport="tcp")
    stranger.pool.start()
    time.sleep(1.5)
    assert stranger.of(events.WorkerReady) == []
    assert all(link.capabilities is None for link in stranger.links())


def test_keys_that_are_there_are_read_whoever_holds_their_lock(settings, monkeypatch) -> None:
    monkeypatch.setattr("upx.private_files.LOCK_S", 0.1)
    made = endpoints.curve_keys(settings, channel.new_key_pair)
    with changing(settings.state_dir / "curve"):
        assert endpoints.curve_keys(settings, channel.new_key_pair) == made


def test_many_who_need_keys_at_once_get_the_same_and_those_the_workers_let_in(settings) -> None:
    def keys(_: int) -> tuple[str, str]:
        worker, pair = endpoints.curve_keys(settings, channel.new_key_pair)
        return pair.public, json.loads(read_private(worker))["client_public"]

    for missing in ("client.json", "worker.json"):
        with ThreadPoolExecutor(8) as threads:
            ((ours, let_in),) = set(threads.map(keys, range(16)))
        assert ours == let_in
        (settings.state_dir / "curve" / missing).unlink()


def test_windows_starts_a_worker_without_descriptors_and_in_a_job(monkeypatch, plan, tmp_path) -> None:
    asked: list[dict] = []
    jobs: list[int] = []

    class Child:
        pid, _handle = os.getpid(), 77

        def __init__(self, command, **options) -> None:
            asked.append({"command": command, **options})

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(process, "IS_WINDOWS", True)
    monkeypatch.setattr(subprocess, "Popen", Child)
    monkeypatch.setattr(process, "_job", type("Job", (), {"add": staticmethod(jobs.append)}))
    started = process.spawn(plan, "{}", fds=(), tie=-1, log=logs.LogFile(tmp_path / "x.log"), log_fd=1)
    started.release()
    assert "pass_fds" not in asked[0]
    assert "start_new_session" not in asked[0]
    assert asked[0]["command"][1:3] == ["-I", str(plan.stage / "boot.py")]
    assert jobs == [77]
    process.spawn(replace(plan, keep_alive=60.0), "{}", fds=(), tie=-1, log=started.log, log_fd=1).release()
    assert jobs == [77], "a detached worker outlives its host"


def test_job_objects_are_windows_own() -> None:
    with pytest.raises(NotImplementedError):
        windows.Job().add(1)


def test_a_fault_of_the_pool_itself_fails_what_waits_and_leaves_nothing(open_pool, plan, monkeypatch) -> None:
    eyes = open_pool(plan)
    (future,) = eyes.submit(noise(1), delay=30)
    pid = eyes.in_flight()

    def broken(*_args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(lifecycle, "step", broken)
    error = future.exception(10)
    assert isinstance(error, WorkerError)
    assert "a bug" in str(error)
    assert gone_within(pid, 5.0)
    with pytest.raises(WorkerError, match="closed"):
        eyes.submit(noise(1))


def test_the_hosts_packages_are_not_imported_with_the_package() -> None:
    code = "import sys, upx.workers; print(sorted({'zmq', 'numpy', 'msgpack'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
    assert Path(process.__file__).parent.joinpath("__init__.py").read_text(encoding="utf-8").count("import") == 0
