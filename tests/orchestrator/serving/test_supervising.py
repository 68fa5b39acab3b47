"""The supervisor of a box with workers that are made up: those that hang, that take long to go, that cannot start."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from upx.config import Settings
from upx.errors import WorkerError, WorkerStartError
from upx.serving import box as box_module
from upx.serving.addresses import Address, listen
from upx.serving.box import BoxServer
from upx.serving.worker import MOST_BACKOFF_S, Facts, ServedWorker
from upx.workers import birth, process, registry
from upx.workers.control import Stopped

NOTHING = SimpleNamespace(name="mine", models=(), parameters=())
KEEPER = SimpleNamespace(taking=None)


class Hung:
    """A worker that no SIGTERM ends, and that SIGKILL ends only after ``slow`` seconds."""

    finished = draining = False
    plan = info = None
    pidfd = -1

    def __init__(self, slow: float) -> None:
        self.running, self.told = True, []
        self._slow, self._goes = slow, float("inf")

    def poll(self, now: float, *, restart: bool) -> None:
        assert not restart
        self.running = self.running and now < self._goes

    def signal(self, number: int) -> None:
        self.told.append(number)

    def kill(self) -> None:
        self._goes = time.monotonic() + self._slow


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(box_module, "END_S", 0.1)
    monkeypatch.setattr(box_module, "KILL_S", 1.0)

    def made(*workers: Hung, plans=list) -> BoxServer:
        settings = Settings.from_env({"UPX_HOME": str(tmp_path)})
        server = BoxServer("attic", NOTHING, plans, settings, address=Address("127.0.0.1", 0), keeper=KEEPER)
        server.workers = list(workers)
        return server

    return made


def test_a_worker_that_hangs_is_killed_and_waited_for(make) -> None:
    worker = Hung(slow=0.2)
    server = make(worker)
    server._ending.set()
    assert server.run() == 0
    assert worker.told == [signal.SIGTERM]
    assert not worker.running


def test_a_worker_that_outlives_even_that_is_said(make) -> None:
    server = make(Hung(slow=60.0))
    server._ending.set()
    with pytest.raises(WorkerError, match="a worker does not end"):
        server.run()


def test_a_hangup_that_cannot_be_obeyed_leaves_the_workers_as_they_are(make, caplog) -> None:
    def plans() -> list:
        raise WorkerStartError("the code cannot be staged", hint="install it again")

    server = make(plans=plans)
    server._renew()
    assert server._renewer is None
    assert "the workers stay as they are: the code cannot be staged" in caplog.text


def test_a_hangup_after_which_a_worker_does_not_come_back_takes_no_other_down(make, monkeypatch, caplog) -> None:
    drained: list[int] = []
    monkeypatch.setattr(box_module, "BIND_S", 0.2)
    monkeypatch.setattr(box_module.control, "end_worker", ender(drained))
    make(*serving(2))._drain_each()
    assert drained == [1]
    assert "has not come back: the others stay as they are" in caplog.text


def serving(count: int) -> list[Hung]:
    """Workers that have bound, with the pids 1, 2, and so on."""
    workers = [Hung(slow=0.0) for _ in range(count)]
    for pid, each in enumerate(workers, start=1):
        each.info, each.port = SimpleNamespace(pid=pid), 7600
    return workers


def ender(drained: list[int], how: str = "drained"):
    """What ends a worker so; the pids that it was given."""

    def end_worker(info: SimpleNamespace, *_args, **_named) -> Stopped:
        drained.append(info.pid)
        return Stopped(info, how)

    return end_worker


@pytest.mark.parametrize(("how", "ending", "expected"), [("drained", 0, True), ("gone", 0, False), ("gone", 1, True)])
def test_a_worker_that_has_died_before_it_was_drained_leaves_its_successor_as_any_other(
    make, monkeypatch, how, ending, expected
) -> None:
    worker, server = serving(1)[0], make()
    server.workers = [worker]
    end_worker = ender([], how)

    def replaced(info: SimpleNamespace, *_args, **_named) -> Stopped:
        worker.info = SimpleNamespace(pid=2)
        if ending:
            server._ending.set()
        return end_worker(info)

    monkeypatch.setattr(box_module.control, "end_worker", replaced)
    server._drain_each()
    assert worker.draining == expected


@pytest.mark.parametrize("error", [WorkerError("its keys are gone", hint="x"), OSError("no space")])
def test_a_hangup_that_fails_at_one_worker_is_said_and_leaves_the_others(make, monkeypatch, caplog, error) -> None:
    monkeypatch.setattr(box_module.control, "end_worker", raiser(error))
    workers = serving(2)
    make(*workers)._drain_each()
    assert f"the others stay as they are: {error}" in caplog.text
    assert [each.draining for each in workers] == [False, False]


# ---------------------------------------------------------------------------------------------- starts that fail


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings.from_env({"UPX_HOME": str(tmp_path)})


@pytest.fixture
def served(settings, tmp_path):
    """A worker of a box whose plan nobody looks at."""
    plan = SimpleNamespace(
        backend="mine", module="mine.worker", identity="ab" * 32, device="cpu", env="", build="", tied=True
    )
    (listener,) = listen(Address("127.0.0.1", 0), 1)
    facts = Facts("attic", (listener.getsockname()[1],), tmp_path / "keys", tmp_path / "allowed", ())
    with listener:
        yield ServedWorker(plan, facts, KEEPER, settings, listener=listener, number=0)


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def raiser(error: BaseException):
    def call(*_args, **_named):
        raise error

    return call


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts descriptors through /proc")
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOSPC, "No space left on device"),
        WorkerStartError("its environment is being changed", hint="wait"),
        MemoryError("none"),
    ],
    ids=["memory", "descriptors", "space", "refused", "python"],
)
def test_a_worker_that_cannot_be_started_is_tried_again_later_in_one_line_each(
    served, monkeypatch, caplog, error
) -> None:
    monkeypatch.setattr(birth, "bear", raiser(error))
    before = descriptors()
    pauses = []
    for _ in range(9):
        served.poll(time.monotonic() + served.due(0.0), restart=True)
        assert not served.running
        pauses.append(served.due(time.monotonic()))
    assert descriptors() == before
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 9
    assert all(str(error) in line and "\n" not in line for line in said)
    assert [re.findall(r"again in ([0-9.]+) s$", line)[0] for line in said[:4]] == ["0.4", "0.8", "1.6", "3.2"]
    assert pauses[-1] == pytest.approx(MOST_BACKOFF_S, abs=1.0)
    served.poll(time.monotonic(), restart=True)
    assert len(caplog.records) == 9, "it waits until its time has come"


def test_a_worker_is_started_once_that_can_be_done_again(served, monkeypatch) -> None:
    monkeypatch.setattr(birth, "bear", raiser(OSError(errno.ENOMEM, "memory")))
    served.poll(time.monotonic(), restart=True)
    monkeypatch.undo()
    monkeypatch.setattr(birth, "bear", lambda *_: born())
    served.poll(time.monotonic() + 60.0, restart=True)
    assert (served.running, served.starts) == (True, 1)
    served.kill()
    await_ended(served)


def born(entry: Path = Path("nowhere")) -> birth.Born:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pidfd = os.pidfd_open(child.pid) if sys.platform == "linux" else -1
    return birth.Born("mine-ab-0", process.Process(child.pid, 0, pidfd, child=child), entry)


def await_ended(worker: ServedWorker) -> None:
    until = time.monotonic() + 10.0
    while worker.running and time.monotonic() < until:
        worker.poll(time.monotonic(), restart=False)
        time.sleep(0.01)
    assert not worker.running


def test_a_worker_whose_questions_nobody_could_answer_is_ended_again(served, monkeypatch, tmp_path) -> None:
    made = born(tmp_path / "entry")
    made.entry.touch()
    child = made.process.child
    monkeypatch.setattr(birth, "bear", lambda *_: made)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    served.poll(time.monotonic(), restart=True)
    monkeypatch.undo()
    assert not served.running
    assert child.returncode == -signal.SIGKILL
    assert not made.entry.exists()


def test_a_box_that_cannot_start_all_of_its_workers_ends_those_that_it_has_started(make, monkeypatch) -> None:
    workers: list[Hung] = []

    class Second(Hung):
        def __init__(self, *_args, number: int, **_named) -> None:
            super().__init__(slow=0.0)
            self.running = number == 0
            workers.append(self)

        def start(self, _now: float) -> None:
            if not self.running:
                raise WorkerStartError("no python", hint="upx doctor")

    monkeypatch.setattr(box_module, "ServedWorker", Second)
    server = make(plans=lambda: [NOTHING, NOTHING])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(WorkerStartError, match="no python"):
        server.start()
    assert [each.running for each in workers] == [False, False]
    assert workers[0].told == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before
    assert all(each.fileno() == -1 for each in server._listeners)


def test_a_worker_that_was_killed_is_not_shown_as_one_that_serves(served, settings) -> None:
    lock, path = registry.create(settings, "ab" * 32, 0, backend="mine", endpoint="", tied=True)
    os.write(lock, b" ")
    path.write_text('{"endpoint": "tcp://127.0.0.1:1", "pid": 1, "backend": "mine"}')
    served._entry = path
    assert served.info is not None
    os.close(lock)
    assert served.info is None


# ---------------------------------------------------------------------------------------------- waiting


class Calm(Hung):
    """A worker whose process is there, and that ends well with it."""

    def __init__(self) -> None:
        super().__init__(slow=0.0)
        self.process = born().process
        self.looked = 0

    @property
    def pidfd(self) -> int:
        return self.process.pidfd

    def due(self, _now: float) -> float:
        return float("inf")

    def poll(self, _now: float, *, restart: bool) -> None:
        self.looked += restart
        if self.running and self.process.ended():
            self.process.release()
            self.running, self.finished = False, True

    def signal(self, number: int) -> None:
        super().signal(number)
        self.process.signal(number)


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfds")
@pytest.mark.parametrize("ends", ["worker", "box"])
def test_a_box_looks_when_something_happens_and_not_before(make, monkeypatch, ends) -> None:
    monkeypatch.setattr(box_module, "IDLE_S", 60.0)
    worker = Calm()
    server = make(worker)
    server._handlers = {signal.SIGTERM: signal.signal(signal.SIGTERM, server._told)}
    pid = worker.process.pid if ends == "worker" else os.getpid()
    timer = threading.Timer(0.5, os.kill, (pid, signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    assert server.run() == 0
    timer.join()
    assert 0.4 < time.monotonic() - began < 10.0
    assert worker.looked <= 2
    assert not worker.running


def test_where_no_descriptor_tells_of_an_end_a_box_looks_itself(make, monkeypatch) -> None:
    monkeypatch.setattr(box_module, "IDLE_S", 60.0)

    class Blind(Calm):
        pidfd = -1

    worker = Blind()
    timer = threading.Timer(0.3, worker.process.kill)
    timer.start()
    assert make(worker).run() == 0
    timer.join()
    assert worker.looked > 1
    assert not worker.running


def test_a_box_wakes_when_a_worker_is_to_be_started(make, monkeypatch) -> None:
    monkeypatch.setattr(box_module, "IDLE_S", 60.0)

    class Late(Hung):
        at = 0.0

        def due(self, now: float) -> float:
            return max(0.0, self.at - now)

        def poll(self, now: float, *, restart: bool) -> None:
            self.finished = restart and now >= self.at

    worker = Late(slow=0.0)
    worker.running, worker.at = False, time.monotonic() + 0.3
    assert make(worker).run() == 0
    assert time.monotonic() >= worker.at
