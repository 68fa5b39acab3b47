"""How a worker ends: told to, signalled, alone, unfindable, orphaned, or broken."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from upx_protocol.messages import Bye, Drain, Drained, Failed, Hello, Load, Reject, Started, TileDone
from upx_protocol.patience import GAVE_UP
from upx_protocol.version import Version

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import RunningWorker
    from upx_protocol.testing import FakeHost

TILE = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def entry(tmp_path: Path) -> str:
    return str(tmp_path / "entry.json")


def test_drain_finishes_the_queue_takes_nothing_new_and_ends_with_0(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], entry: str
) -> None:
    worker = start(entry=entry)
    host, other = connect(worker), connect(worker)
    host.load("any")
    batches = [host.submit([TILE], sleep=0.2) for _ in range(2)]
    host.expect(Started)
    host.send(Drain(80))
    late = host.submit([TILE])
    refused = host.expect(Failed)
    assert (refused.id, refused.failure, refused.retryable) == (late, "transient", True)
    assert not Path(entry).exists(), "a worker that takes nothing new must not be found"
    newcomer = connect(worker, hello=False)
    newcomer.send(Hello(1, Version(1, 0), Version(1, 0)))
    assert newcomer.expect(Reject).reason == "leaving"
    assert [host.expect(TileDone).id for _ in batches] == batches
    assert host.expect(Drained).id == 80
    other.expect(Bye)
    assert worker.ended() == 0


def test_sigterm_drains(start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], entry: str) -> None:
    worker = start(entry=entry)
    host = connect(worker)
    host.load("any")
    host.submit([TILE], sleep=0.3)
    host.expect(Started)
    worker.process.send_signal(signal.SIGTERM)
    host.expect(TileDone)
    host.expect(Bye)
    assert worker.ended() == 0
    assert not Path(entry).exists()


def test_sigterm_ends_a_worker_whose_main_thread_sits_in_a_long_c_call(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    host = connect(worker)
    host.load("any")
    host.submit([TILE], c_sleep=30)
    host.expect(Started)
    asked = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended(10.0) == 0
    assert time.monotonic() - asked < 8.0


def test_a_worker_that_serves_others_ends_when_a_batch_never_does(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start(box="attic", tied=False, batch_s=0.5)
    host, other = connect(worker), connect(worker)
    host.load("any")
    host.submit([TILE], c_sleep=30)
    host.expect(Started)
    assert "a batch takes more than" in other.expect(Bye).reason
    assert worker.ended() == GAVE_UP
    assert "this worker ends, for another to be started" in worker.stderr


def test_a_batch_that_ends_after_the_farewell_is_nobodys_and_no_crash(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    host = connect(worker)
    host.load("any")
    # The worker waits for 3 seconds, says goodbye, and gives the main thread one more.
    host.submit([TILE], sleep=3.6)
    host.expect(Started)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended(10.0) == 0
    assert "Traceback" not in worker.stderr


def test_ctrl_c_is_the_hosts_to_handle(start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]) -> None:
    worker = start()
    host = connect(worker)
    worker.process.send_signal(signal.SIGINT)
    host.load("any")


def test_a_tied_worker_ends_when_its_host_says_goodbye(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    connect(worker).send(Bye("done"))
    assert worker.ended() == 0


def test_a_detached_worker_outlives_its_host_and_leaves_when_it_was_alone_for_long_enough(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], entry: str
) -> None:
    worker = start(tied=False, idle_s=0.8, entry=entry)
    host = connect(worker)
    host.load("any")
    time.sleep(1.2)
    host.upscale([TILE])
    host.send(Bye())
    said = time.monotonic()
    assert connect(worker).load("any").key == "key"
    # The second host never says goodbye: its silence ends the session, and only then the clock runs.
    assert worker.ended(12.0) == 0
    assert time.monotonic() - said > 5.0
    assert not Path(entry).exists()


def test_a_tied_worker_dies_with_the_pipe_that_its_host_held(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], entry: str
) -> None:
    reader, writer = os.pipe()
    worker = start(tie_fd=reader, parent=0, pass_fds=(reader,), entry=entry)
    os.close(reader)
    host = connect(worker)
    host.load("any")
    host.submit([TILE], c_sleep=20)
    host.expect(Started)
    os.close(writer)
    worker.ended(1.0)
    assert not Path(entry).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PDEATHSIG is Linux's")
def test_a_tied_worker_dies_with_its_parent_even_on_sigkill(stage: Path, sockets: Path) -> None:
    script = (
        "import os, subprocess, sys, dataclasses, time\n"
        "from upx_protocol.options import WorkerOptions\n"
        f"o = WorkerOptions('toy', 'toy', 'ipc://{sockets}/0', parent=os.getpid())\n"
        f"p = subprocess.Popen([sys.executable, '-I', {str(stage / 'boot.py')!r}, o.to_json()])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(stage)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environ) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        deadline = time.monotonic() + 5.0
        while not (sockets / "0").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert Path(f"/proc/{pid}").exists()
        host.kill()
    deadline = time.monotonic() + 1.0
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _lives(pid)


def test_a_worker_whose_parent_was_gone_before_it_could_ask_ends_at_once(
    start: Callable[..., RunningWorker],
) -> None:
    assert start(parent=1).ended() == 75


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_worker_that_nobody_can_find_any_more_leaves(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], entry: str, how: str
) -> None:
    fd = os.open(entry, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    worker = start(tied=False, idle_s=None, entry=entry, lock_fd=fd, pass_fds=(fd,))
    os.close(fd)
    host = connect(worker)
    Path(entry).unlink()
    if how == "replaced":
        Path(entry).write_text("somebody else's")
    host.expect(Bye)
    assert worker.ended() == 0
    assert Path(entry).exists() == (how == "replaced")


def test_a_worker_holds_the_lock_of_its_entry_for_as_long_as_it_lives(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], entry: str
) -> None:
    fd = os.open(entry, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    worker = start(entry=entry, lock_fd=fd, pass_fds=(fd,))
    os.close(fd)
    connect(worker)
    with Path(entry).open() as again:
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        worker.process.kill()
        worker.ended()
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Path(worker.options.endpoint.replace("ipc://", "")).unlink()


def test_a_backend_that_cannot_be_imported_says_so_and_the_process_fails_with_the_traceback(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start(module="broken")
    assert worker.ended() == 1
    assert "ModuleNotFoundError" in worker.stderr


def test_a_fatal_error_is_told_and_ends_the_worker(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start(tied=False)
    host = connect(worker)
    host.load("any")
    host.submit([TILE], fail="fatal")
    assert host.expect(Failed).failure == "fatal"
    host.expect(Bye)
    assert worker.ended() == 1


def test_a_killed_load_leaves_no_process(start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]) -> None:
    worker = start()
    host = connect(worker)
    host.send(Load(5, "key", "any", params={"sleep": 30}))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended(8.0) == 0


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
