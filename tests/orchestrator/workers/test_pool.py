"""A pool with real workers of `nearest`: what goes in comes out, and nothing is left behind."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worker_kit import QUICK, colour, enlarged, gone_within, noise, until

from upx import errors
from upx.workers import events, registry
from upx.workers.pool import WorkerPool


def test_a_tile_comes_back_enlarged_and_read_only(open_pool, plan) -> None:
    eyes = open_pool(plan)
    tile = noise(1)
    result = eyes.submit(tile)[0].result(30)
    assert np.array_equal(result.array, enlarged(tile))
    assert not result.array.flags.writeable
    assert result.seconds >= 0
    assert result.worker == eyes.of(events.WorkerReady)[0].worker


def test_ready_tells_what_the_worker_can_do(open_pool, plan) -> None:
    capabilities = open_pool(plan, model="nearest-x2").pool.ready(30)
    assert (capabilities.scale, capabilities.device, capabilities.size.minimum) == (2, "cpu", 1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_batch_is_answered_tile_by_tile_in_the_dtype_asked_for(open_pool, plan, dtype) -> None:
    tiles = [noise(seed) for seed in range(5)]
    results = open_pool(plan).up(*tiles, out_dtype=dtype)
    expected = [enlarged(tile) if dtype == "uint8" else enlarged(tile) / np.float32(255) for tile in tiles]
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == dtype
        assert np.allclose(result, wanted, atol=1e-6)


def test_a_one_tile_job_starts_one_worker_and_more_tiles_start_more(open_pool, plan) -> None:
    eyes = open_pool(plan, workers=2)
    eyes.up(noise(1))
    assert len(eyes.of(events.WorkerStarting)) == 1
    futures = [eyes.submit(noise(seed), delay=0.4)[0] for seed in range(8)]
    assert len({future.result(30).worker for future in futures}) == 2
    assert len(eyes.of(events.WorkerStarting)) == 2


def test_closing_a_pool_ends_its_worker_and_leaves_no_entry_socket_thread_or_descriptor(
    open_pool, plan, settings
) -> None:
    open_pool(plan).up(noise(1))  # what Python opens once
    before, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    eyes = open_pool(plan)
    eyes.up(noise(1))
    (pid,) = eyes.pids()
    eyes.pool.close()
    assert gone_within(pid, 0.0) or not Path(f"/proc/{pid}").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert threading.active_count() == threads
    with pytest.raises(errors.WorkerError, match="closed"):
        eyes.submit(noise(1))


def test_closing_while_a_tile_is_computed_takes_no_longer_than_it_says(open_pool, plan, settings) -> None:
    eyes = open_pool(plan)
    (future,) = eyes.submit(noise(1), delay=60)
    pid = eyes.in_flight()
    began = time.monotonic()
    eyes.pool.close(timeout=2.0)
    assert time.monotonic() - began < 3.0
    assert gone_within(pid, 0.2)
    assert isinstance(future.exception(1), errors.CancelledError)
    assert list(settings.workers_dir.rglob("*.json")) == []


def test_a_cancelled_job_ends_at_once_and_the_others_go_on(open_pool, plan) -> None:
    eyes = open_pool(plan)
    slow = [eyes.submit(noise(seed), job=1, delay=0.3)[0] for seed in range(4)]
    (other,) = eyes.submit(noise(9), job=2)
    eyes.in_flight()
    eyes.pool.cancel(1)
    assert all(isinstance(future.exception(0.25), errors.CancelledError) for future in slow)
    assert np.array_equal(other.result(10).array, enlarged(noise(9)))
    assert eyes.of(events.WorkerDied) == []


def test_a_tile_that_is_too_large_for_memory_fails_with_its_batch_and_the_worker_lives(open_pool, plan) -> None:
    eyes = open_pool(plan)
    futures = eyes.submit(noise(1), noise(2), oom_on=colour(noise(2)))
    assert [type(future.exception(30)) for future in futures] == [errors.OutOfMemoryError] * 2
    assert np.array_equal(eyes.up(noise(1))[0], enlarged(noise(1)))
    assert eyes.of(events.WorkerDied) == []


@pytest.mark.parametrize(("rule", "error"), [("fail_on", errors.TileRefusedError), ("error_on", errors.ModelError)])
def test_a_refused_tile_and_a_broken_model_are_told_apart(open_pool, plan, rule, error) -> None:
    eyes = open_pool(plan)
    (future,) = eyes.submit(noise(1), **{rule: colour(noise(1))})
    found = future.exception(30)
    assert type(found) is error
    assert found.hint
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("fail", "error"),
    [("oom", errors.OutOfMemoryError), ("input", errors.WeightsError), ("fatal", errors.WorkerStartError),
     ("crash", errors.WorkerStartError)],
)  # fmt: skip
def test_a_load_that_fails_says_why_to_everybody_who_waits(open_pool, plan, fail, error) -> None:
    eyes = open_pool(plan, params={"load_fail": fail})
    (future,) = eyes.submit(noise(1))
    with pytest.raises(error) as caught:
        eyes.pool.ready(30)
    assert caught.value.hint
    assert type(future.exception(5)) is error
    assert len(eyes.of(events.WorkerStarting)) == (3 if fail == "crash" else 1)


def test_an_adapter_that_cannot_be_imported_is_told_with_the_workers_last_words(open_pool, plan) -> None:
    eyes = open_pool(plan, module="upx_backends.nearest.nothing")
    with pytest.raises(errors.WorkerStartError) as caught:
        eyes.pool.ready(30)
    assert "nothing" in str(caught.value)
    assert "ModuleNotFoundError" in "\n".join(caught.value.__notes__)


def test_an_interpreter_that_is_not_there_is_a_worker_that_does_not_start(open_pool, plan, tmp_path, settings) -> None:
    eyes = open_pool(plan, python=tmp_path / "no-python")
    with pytest.raises(errors.WorkerStartError, match="no-python"):
        eyes.pool.ready(30)
    assert list(settings.workers_dir.rglob("*.json")) == []


def test_ready_ends_when_its_time_is_up(open_pool, plan) -> None:
    eyes = open_pool(plan, params={"load_delay": 20.0})
    with pytest.raises(errors.WorkerStartError, match=r"within 0\.5 s"):
        eyes.pool.ready(0.5)


def test_a_long_load_reports_progress_and_lives_by_its_own_deadline(open_pool, plan) -> None:
    timeouts = replace(QUICK, load=0.6)
    eyes = open_pool(plan, timeouts=timeouts, params={"load_delay": 2.0})
    eyes.pool.ready(30)
    assert len(eyes.of(events.LoadProgress)) == 10
    assert len(eyes.of(events.WorkerStarting)) == 1


def test_what_is_no_batch_is_refused_before_anything_starts(open_pool, plan) -> None:
    eyes = open_pool(plan)
    for tiles, seeds in (([], ()), ([noise(1), noise(2, 32)], ()), ([noise(1)[..., 0]], ()), ([noise(1)], (1, 2))):
        with pytest.raises(errors.ParameterError):
            eyes.pool.submit(tiles, out_dtype="uint8", job=1, seeds=seeds)
    assert eyes.events == []


def test_parameters_that_cannot_be_sent_fail_their_tile_alone(open_pool, plan) -> None:
    eyes = open_pool(plan)
    (bad,) = eyes.submit(noise(1), thing=object())
    (good,) = eyes.submit(noise(2))
    assert isinstance(bad.exception(30), errors.TileRefusedError)
    assert np.array_equal(good.result(30).array, enlarged(noise(2)))


def test_a_callback_that_blocks_does_not_stop_the_pings(open_pool, plan) -> None:
    eyes = open_pool(plan)
    release = threading.Event()
    (future,) = eyes.submit(noise(1))
    future.add_done_callback(lambda _: release.wait(10))
    future.result(30)
    time.sleep(2.0)  # six pings of this pool
    assert eyes.links()[0].capabilities is not None
    release.set()
    assert np.array_equal(eyes.up(noise(2))[0], enlarged(noise(2)))
    assert eyes.of(events.WorkerDied) == []


def test_callbacks_are_called_apart_from_the_thread_that_completes(open_pool, plan) -> None:
    eyes = open_pool(plan)
    callers: list[str] = []
    futures = [eyes.submit(noise(number))[0] for number in range(8)]
    for future in futures:
        future.add_done_callback(lambda _: callers.append(threading.current_thread().name))
    for future in futures:
        future.result(30)
    assert any(len(callers) == len(futures) for _ in until(5))
    # One that is added when all is done is called where it was added.
    assert set(callers) <= {"upx-callbacks", threading.current_thread().name}
    assert "upx-callbacks" in callers


def test_a_callback_of_a_tile_that_ends_with_its_pool_is_called(open_pool, plan) -> None:
    eyes = open_pool(plan)
    (future,) = eyes.submit(noise(1), delay=20.0)
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    eyes.in_flight()
    eyes.pool.close(timeout=2.0)
    assert called.wait(5)
    assert isinstance(future.exception(0), errors.CancelledError)


def test_a_worker_over_tcp_with_keys_does_the_same(open_pool, plan, settings) -> None:
    eyes = open_pool(plan, transport="tcp", keep_alive=30.0)
    assert np.array_equal(eyes.up(noise(1))[0], enlarged(noise(1)))
    (info,) = registry.list_workers(settings)
    assert info.endpoint.startswith("tcp://127.0.0.1:")
    assert len(info.curve_public) == 40
    for path in (settings.state_dir / "curve").glob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    again = open_pool(plan, transport="tcp", keep_alive=30.0)
    assert again.submit(noise(1))[0].result(30).worker == info.name
    assert len(again.of(events.WorkerAdopted)) == 1


def test_a_worker_sees_the_environment_of_its_plan_and_no_other(open_pool, plan, monkeypatch) -> None:
    monkeypatch.setenv("UPX_SECRET", "token")
    eyes = open_pool(plan, environ={**plan.environ, "GIVEN": "1"})
    eyes.pool.ready(30)
    content = Path(f"/proc/{eyes.pids()[0]}/environ").read_bytes()
    names = {item.split(b"=")[0] for item in content.split(b"\0") if item}
    assert b"GIVEN" in names
    assert b"UPX_SECRET" not in names


def test_a_state_folder_that_cannot_be_used_is_named_with_the_next_step(plan, settings, tmp_path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("a file")
    with (
        WorkerPool(plan, replace(settings, state_dir=blocked)) as pool,
        pytest.raises(errors.WorkerStartError) as caught,
    ):
        pool.ready(20)
    assert str(blocked) in str(caught.value)
    assert "space and permissions" in caught.value.hint
