"""One search for a worker: whom it adopts, and whom never again."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from upx.workers import birth, endpoints, registry
from upx.workers.launch import Launch
from upx.workers.plan import Timeouts


@pytest.fixture
def launch(settings, plan, monkeypatch) -> Launch:
    """Of a pool that adopts; whoever would spawn says so."""

    def bear(*_args: object) -> None:
        raise AssertionError("it would start a worker")

    monkeypatch.setattr(birth, "bear", bear)
    return Launch(
        replace(plan, keep_alive=60.0), settings, transport="ipc", timeouts=Timeouts(), taken=set(),
        report=lambda _event: None,
    )  # fmt: skip


@pytest.fixture
def entry(settings, plan):
    """An entry, alive because this process holds it, and the name of the worker's socket."""
    identity, endpoint = replace(plan, keep_alive=60.0).identity, endpoints.new_endpoint(settings, "ipc")
    fd, path = registry.create(settings, identity, 0, backend="nearest", endpoint=endpoint, tied=False)
    yield fd, endpoint
    path.unlink()
    os.close(fd)


def says(fd: int, **fields: object) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps({"schema": 1, "tied": False, **fields}).encode(), 0)


def test_a_successor_that_was_given_the_entrys_inode_is_adopted(launch, entry, settings) -> None:
    fd, _ = entry
    launch.poll(1.0)
    before = launch.entry
    launch.again()
    says(fd, endpoint="", planned=endpoints.new_endpoint(settings, "ipc"))
    launch.poll(2.0)
    assert (launch.entry.path, launch.entry.inode) == (before.path, before.inode)


def test_a_worker_that_was_of_no_use_is_never_taken_again_whether_it_has_bound_or_not(launch, entry) -> None:
    fd, endpoint = entry
    launch.poll(1.0)
    assert launch.entry.starting
    launch.again()
    with pytest.raises(AssertionError, match="would start"):
        launch.poll(2.0)
    says(fd, endpoint=endpoint, pid=os.getpid())
    with pytest.raises(AssertionError, match="would start"):
        launch.poll(3.0)
