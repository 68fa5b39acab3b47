"""Detached workers outlive the pool that started them, serve the next and several at once, and leave in the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from worker_kit import QUICK, enlarged, gone_within, lives, noise, until

from upx.errors import UsageError
from upx.workers import control, events, machine, registry


@pytest.fixture
def detached(plan):
    return replace(plan, keep_alive=60.0)


def test_a_detached_worker_serves_the_next_pool_without_another_load(open_pool, detached) -> None:
    first = open_pool(detached)
    first.up(noise(1))
    (pid,) = first.pids()
    first.pool.close()
    assert lives(pid)
    second = open_pool(detached)
    assert np.array_equal(second.up(noise(2))[0], enlarged(noise(2)))
    assert second.pids() == [pid]
    assert [event.pid for event in second.of(events.WorkerAdopted)] == [pid]
    assert second.of(events.WorkerStarting) == []


def test_two_hosts_use_one_detached_worker_at_the_same_time(open_pool, detached) -> None:
    pools = [open_pool(detached) for _ in range(2)]
    futures = [eyes.submit(noise(seed), delay=0.02)[0] for seed in range(10) for eyes in pools]
    for index, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(index // 2)))
    assert len({eyes.pids()[0] for eyes in pools}) == 1
    assert sum(len(eyes.of(events.WorkerStarting)) for eyes in pools) == 1


def test_a_tied_pool_takes_no_detached_worker_and_nobody_takes_a_tied_one(open_pool, detached) -> None:
    first, tied, second = open_pool(detached), open_pool(detached, keep_alive=0), open_pool(detached)
    for eyes in (first, tied, second):
        eyes.pool.ready(30)
    assert first.pids() == second.pids() != tied.pids()


def test_another_build_environment_or_parameter_is_another_worker(detached) -> None:
    changes = [{"build": "x"}, {"env": "x"}, {"params": {"load_delay": 0.1}}, {"threads": 2}, {"weights": "x"},
               {"precision": "fp16"}, {"device_identity": "GPU-1"}, {"backend": "other"}]  # fmt: skip
    identities = {detached.identity, *(replace(detached, **change).identity for change in changes)}
    assert len(identities) == len(changes) + 1
    assert replace(detached, model="nearest-x2").identity == detached.identity
    assert replace(detached, model="nearest-x2").load_key != detached.load_key


def test_a_model_that_another_host_uses_is_not_replaced_a_second_worker_starts(open_pool, detached) -> None:
    first = open_pool(detached)
    first.up(noise(1))
    second = open_pool(detached, model="nearest-x2")
    assert np.array_equal(second.up(noise(1))[0], enlarged(noise(1), 2))
    assert first.pids() != second.pids()
    assert np.array_equal(first.up(noise(2))[0], enlarged(noise(2)))


def test_a_worker_that_nobody_uses_takes_another_model(open_pool, detached) -> None:
    first = open_pool(detached)
    first.up(noise(1))
    pids = first.pids()
    first.pool.close()
    second = open_pool(detached, model="nearest-x2")
    assert np.array_equal(second.up(noise(1))[0], enlarged(noise(1), 2))
    assert second.pids() == pids


def test_an_idle_worker_leaves_when_its_time_is_up_and_takes_its_entry_along(open_pool, detached, settings) -> None:
    eyes = open_pool(detached, keep_alive=0.5)
    eyes.up(noise(1))
    (pid,) = eyes.pids()
    time.sleep(1.0)
    assert lives(pid), "it is not idle while a host has a session"
    eyes.pool.close()
    assert gone_within(pid, 3.0)
    assert list(settings.workers_dir.rglob("*.json")) == []


def test_a_worker_whose_entry_was_removed_leaves_and_its_tiles_go_to_another(open_pool, detached, settings) -> None:
    eyes = open_pool(detached)
    futures = [eyes.submit(noise(seed), delay=0.4)[0] for seed in range(9)]
    pid = eyes.in_flight()
    (info,) = registry.list_workers(settings)
    info.path.unlink()
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(seed)))
    assert gone_within(pid, 5.0)
    assert not any(event.alone for event in eyes.of(events.TileRequeued))


def test_an_adopted_worker_that_is_killed_is_replaced(open_pool, detached) -> None:
    open_pool(detached).up(noise(1))
    eyes = open_pool(detached)
    futures = [eyes.submit(noise(seed), delay=0.1)[0] for seed in range(4)]
    os.kill(eyes.in_flight(), signal.SIGKILL)
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(seed)))


def test_a_stopped_worker_is_not_waited_for_another_is_started(open_pool, detached) -> None:
    first = open_pool(detached)
    first.up(noise(1))
    (pid,) = first.pids()
    first.pool.close()
    os.kill(pid, signal.SIGSTOP)
    second = open_pool(detached)
    began = time.monotonic()
    assert np.array_equal(second.up(noise(1))[0], enlarged(noise(1)))
    assert time.monotonic() - began < QUICK.hello + 5
    assert second.pids() != [pid]
    os.kill(pid, signal.SIGCONT)


def test_a_hung_tile_of_ours_does_not_kill_a_worker_that_serves_others(open_pool, detached, tmp_path) -> None:
    trap = tmp_path / "trap"
    trap.touch()
    other, eyes = open_pool(detached), open_pool(detached)
    other.up(noise(1))
    (future,) = eyes.submit(noise(2), hang_once_file=str(trap))
    pid = eyes.in_flight()
    assert pid == other.pids()[0]
    assert np.array_equal(future.result(30).array, enlarged(noise(2)))
    assert eyes.pids() != [pid]
    assert lives(pid)


def test_two_pools_that_start_at_the_same_moment_share_one_worker(open_pool, detached) -> None:
    pools = [open_pool(detached) for _ in range(4)]
    threads = [threading.Thread(target=eyes.pool.ready, args=(30,)) for eyes in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({pid for eyes in pools for pid in eyes.pids()}) == 1


def test_stop_drains_a_worker_that_others_use_and_they_go_on_with_another(open_pool, detached, settings) -> None:
    eyes = open_pool(detached)
    futures = [eyes.submit(noise(seed), delay=0.1)[0] for seed in range(6)]
    pid = eyes.in_flight()
    (stopped,) = control.stop(settings, "nearest", timeout=10)
    assert (stopped.how, stopped.worker.pid) == ("drained", pid)
    assert gone_within(pid, 1.0)
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(seed)))
    assert not any(event.alone for event in eyes.of(events.TileRequeued)), "blameless: it was ended on purpose"


def test_stop_by_force_does_not_wait_for_a_tile(open_pool, detached, settings, monkeypatch) -> None:
    monkeypatch.setattr(control, "TERM_S", 0.5)
    eyes = open_pool(detached, timeouts=replace(QUICK, busy_first=30.0))
    eyes.submit(noise(1), delay=20.0)
    pid = eyes.in_flight()
    began = time.monotonic()
    (stopped,) = control.stop(settings, str(pid), force=True)
    assert stopped.how in {"terminated", "killed"}
    assert time.monotonic() - began < 10
    assert not lives(pid)
    eyes.pool.cancel(1)


def test_stop_ends_a_worker_that_is_just_starting(open_pool, detached, settings) -> None:
    eyes = open_pool(detached)
    eyes.pool.start()
    for _ in until(10, step=0.001):
        if eyes.of(events.WorkerStarting):
            break
    (event,) = eyes.of(events.WorkerStarting)
    eyes.pool.close()
    (stopped,) = control.stop(settings)
    assert (stopped.worker.pid, stopped.ended) == (event.pid, True)
    assert gone_within(event.pid, 1.0)


def test_stop_ends_a_worker_that_does_not_answer(open_pool, detached, settings, monkeypatch) -> None:
    monkeypatch.setattr(control, "TERM_S", 0.5)
    eyes = open_pool(detached)
    eyes.up(noise(1))
    (pid,) = eyes.pids()
    eyes.pool.close()
    os.kill(pid, signal.SIGSTOP)
    (stopped,) = control.stop(settings)
    assert stopped.how == "killed"
    assert gone_within(pid, 1.0)
    assert list(settings.workers_dir.rglob("*.json")) == []


def test_stop_says_which_workers_there_are_when_none_has_that_name(open_pool, detached, settings) -> None:
    assert control.stop(settings) == []
    eyes = open_pool(detached)
    eyes.pool.ready(30)
    with pytest.raises(UsageError, match="'span'") as caught:
        control.stop(settings, "span")
    assert eyes.of(events.WorkerStarting)[0].worker in caught.value.hint


def test_ps_shows_what_a_worker_is(open_pool, detached, settings) -> None:
    eyes = open_pool(detached)
    eyes.up(noise(1))
    shown = registry.list_workers(settings)
    for _ in until(3):
        shown = registry.list_workers(settings)
        if shown[0].hosts:
            break
    (info,) = shown
    assert (info.backend, info.model, info.device, info.tied, info.hosts) == ("nearest", "nearest-x4", "cpu", False, 1)
    assert info.alive
    assert info.pid == eyes.pids()[0]
    assert info.memory > 1_000_000
    assert abs(info.started - time.time()) < 60
    eyes.pool.close()
    for _ in until(3):
        (info,) = registry.list_workers(settings)
        if not info.hosts and info.idle > 0.2:
            break
    assert 0.2 < info.idle < 5


def test_where_memory_is_short_the_longest_idle_worker_leaves_first(open_pool, detached, settings, monkeypatch) -> None:
    idle = open_pool(detached, env="old")
    idle.up(noise(1))
    (pid,) = idle.pids()
    idle.pool.close()
    for _ in until(3):
        if not registry.list_workers(settings)[0].hosts:
            break
    monkeypatch.setattr(machine, "available_memory", lambda: 1 << 20)
    eyes = open_pool(detached, memory=1 << 30)
    assert np.array_equal(eyes.up(noise(1))[0], enlarged(noise(1)))
    assert gone_within(pid, 1.0)
    assert len(eyes.of(events.WorkerEvicted)) == 1
