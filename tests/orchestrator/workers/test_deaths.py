"""Workers that are killed, stopped, crash and hang while a tile is in flight: the outputs are those without it."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from worker_kit import QUICK, colour, enlarged, gone_within, lives, noise, until

from upx import errors
from upx.workers import events

TILES = [noise(seed) for seed in range(6)]
WANTED = [enlarged(tile) for tile in TILES]


def assert_undisturbed(futures: list) -> None:
    for future, wanted in zip(futures, WANTED, strict=True):
        assert np.array_equal(future.result(30).array, wanted)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_killed_while_it_computes_is_replaced_and_no_tile_is_lost(open_pool, plan, workers) -> None:
    eyes = open_pool(plan, workers=workers)
    futures = [eyes.submit(tile, delay=0.15)[0] for tile in TILES]
    pid = eyes.in_flight()
    os.kill(pid, signal.SIGKILL)
    assert_undisturbed(futures)
    assert [event.reason for event in eyes.of(events.WorkerDied)] == ["killed by SIGKILL"]
    assert eyes.of(events.TileRequeued)
    assert not lives(pid)


def test_a_stopped_worker_is_killed_at_its_deadline_and_replaced(open_pool, plan) -> None:
    eyes = open_pool(plan)
    futures = [eyes.submit(tile, delay=0.1)[0] for tile in TILES]
    pid = eyes.in_flight()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert_undisturbed(futures)
    assert time.monotonic() - began < QUICK.busy + 10
    assert gone_within(pid, 1.0)
    assert len(eyes.of(events.WorkerDied)) == 1


def test_a_stopped_worker_is_noticed_when_it_has_nothing_to_do(open_pool, plan) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    (pid,) = eyes.pids()
    os.kill(pid, signal.SIGSTOP)
    assert gone_within(pid, QUICK.ping * (QUICK.misses + 2) + 2)
    assert np.array_equal(eyes.up(TILES[0])[0], WANTED[0])
    assert "pings" in eyes.of(events.WorkerDied)[0].reason


def test_a_worker_stopped_before_it_begins_a_tile_is_noticed_too(open_pool, plan) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    os.kill(eyes.pids()[0], signal.SIGSTOP)
    futures = [eyes.submit(tile)[0] for tile in TILES]
    assert_undisturbed(futures)


@pytest.mark.parametrize("how", ["crash_once_file", "hang_once_file"])
def test_a_worker_that_crashes_or_hangs_once_costs_nothing_but_time(open_pool, plan, tmp_path, how) -> None:
    trap = tmp_path / "trap"
    trap.touch()
    eyes = open_pool(plan)
    futures = [eyes.submit(tile, **{how: str(trap)})[0] for tile in TILES]
    assert_undisturbed(futures)
    assert not trap.exists()
    assert len(eyes.of(events.WorkerDied)) == 1


@pytest.mark.parametrize("how", ["crash_on", "hang_on"])
def test_a_tile_that_ends_two_workers_fails_alone_and_is_named(open_pool, plan, how) -> None:
    eyes = open_pool(plan)
    poison = colour(TILES[2])
    futures = eyes.submit(*TILES[:4], **{how: poison}) + [eyes.submit(tile, **{how: poison})[0] for tile in TILES[4:]]
    error = futures[2].exception(30)
    assert isinstance(error, errors.PoisonTileError)
    assert "tile 2 of job 1" in str(error)
    for index in (0, 1, 3, 4, 5):
        assert np.array_equal(futures[index].result(30).array, WANTED[index])
    assert len(eyes.of(events.WorkerDied)) in {2, 3}
    assert any(event.alone for event in eyes.of(events.TileRequeued))


def test_a_worker_that_dies_again_and_again_is_given_up_with_its_last_words(open_pool, plan) -> None:
    eyes = open_pool(plan)
    futures = [eyes.submit(tile, delay=30.0)[0] for tile in TILES]
    killed: list[int] = []
    for _ in until(30):
        if all(future.done() for future in futures):
            break
        for pid in set(eyes.pids()) - set(killed):
            if eyes.links()[0].capabilities is not None:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    kinds = {type(future.exception(1)) for future in futures}
    assert kinds <= {errors.WorkerLostError, errors.PoisonTileError}
    assert len(killed) <= 4 * len(futures)
    # Not for ever: the next job starts anew.
    assert np.array_equal(eyes.up(TILES[0])[0], WANTED[0])


def test_the_last_line_of_a_crash_stands_in_the_error(open_pool, plan, settings) -> None:
    eyes = open_pool(plan, params={"load_fail": "crash"})
    with pytest.raises(errors.WorkerStartError, match="exit status 70"):
        eyes.pool.ready(30)


def test_no_process_is_left_after_all_of_this(open_pool, plan) -> None:
    eyes = open_pool(plan, workers=2)
    futures = [eyes.submit(tile, delay=0.2)[0] for tile in TILES]
    eyes.in_flight()
    pids = eyes.pids()
    os.kill(pids[0], signal.SIGSTOP)
    eyes.pool.close(timeout=2.0)
    assert all(gone_within(pid, 0.5) for pid in pids)
    assert all(future.done() for future in futures)
