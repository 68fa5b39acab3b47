"""The supervisor of a box with workers that are made up: those that hang, and those that take long to go."""

from __future__ import annotations

import signal
import time

import pytest

from upx.config import Settings
from upx.errors import WorkerError, WorkerStartError
from upx.serving import box as box_module
from upx.serving.addresses import Address
from upx.serving.box import BoxServer

NOTHING = object()


class Keeper:
    closed = False

    def close(self) -> None:
        self.closed = True


class Hung:
    """A worker that no SIGTERM ends, and that SIGKILL ends only after ``slow`` seconds."""

    finished = draining = False
    plan = info = None

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
        server = BoxServer("attic", NOTHING, plans, settings, address=Address("127.0.0.1", 0), keeper=Keeper())
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
    assert server._keeper.closed


def test_a_worker_that_outlives_even_that_is_said(make) -> None:
    server = make(Hung(slow=60.0))
    server._ending.set()
    with pytest.raises(WorkerError, match="a worker does not end"):
        server.run()
    assert server._keeper.closed


def test_a_hangup_that_cannot_be_obeyed_leaves_the_workers_as_they_are(make, caplog) -> None:
    def plans() -> list:
        raise WorkerStartError("the code cannot be staged", hint="install it again")

    server = make(plans=plans)
    server._renew()
    assert server._renewer is None
    assert "the workers stay as they are: the code cannot be staged" in caplog.text
