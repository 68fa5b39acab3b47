"""The double fails as it is told to, where it is told to, and nowhere else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from upx_protocol.messages import Failed, Load, Ping, Pong, Progress, Started, TileDone

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

RED = "c80a14"
PLAIN = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
MARKED = PLAIN.copy()
MARKED[5, 6] = (0xC8, 0x0A, 0x14)
BIG = PLAIN.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_dtype_passes_through_bit_by_bit(nearest: Bench, dtype: str) -> None:
    for scale in (2, 3, 4):
        nearest.host.load(f"nearest-x{scale}", key=str(scale))
        tile = PLAIN.astype(dtype) * np.dtype(dtype).type(257 if dtype == "uint16" else 1)
        (result,) = nearest.host.upscale([tile], out_dtype=dtype)
        np.testing.assert_array_equal(result, tile.repeat(scale, axis=0).repeat(scale, axis=1))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("rule", "failure"), [("oom_on", "oom"), ("fail_on", "input"), ("error_on", "fatal")])
def test_a_tile_of_the_colour_fails_and_others_do_not(nearest: Bench, rule: str, failure: str, dtype: str) -> None:
    nearest.host.load("nearest-x4")
    marked = MARKED if dtype == "uint8" else MARKED.astype(np.float32) / 255
    nearest.host.submit([marked], **{rule: RED})
    assert nearest.host.expect(Failed).failure == failure
    nearest.host.upscale([PLAIN], **{rule: RED})
    nearest.host.upscale([MARKED], **{rule: "#000000"})


def test_tiles_above_a_size_run_out_of_memory(nearest: Bench) -> None:
    nearest.host.load("nearest-x4")
    nearest.host.submit([BIG], oom_above=16)
    failed = nearest.host.expect(Failed)
    assert (failed.failure, failed.retryable) == ("oom", True)
    nearest.host.upscale([PLAIN], oom_above=16)


@pytest.mark.parametrize("once", [False, True])
def test_a_crash_lands_while_the_tile_is_in_flight(nearest: Bench, tmp_path: Path, *, once: bool) -> None:
    nearest.host.load("nearest-x4")
    file = tmp_path / "once"
    file.touch()
    if once:
        nearest.host.submit([PLAIN], crash_once_file=str(file))
    else:
        nearest.host.submit([MARKED], crash_on=RED)
    nearest.host.expect(Started)
    assert nearest.process.wait(5.0) == 70
    assert file.exists() is not once


def test_a_hang_keeps_the_worker_answering_pings_and_no_tile(nearest: Bench, tmp_path: Path) -> None:
    nearest.host.load("nearest-x4")
    file = tmp_path / "once"
    file.touch()
    nearest.host.submit([PLAIN], hang_once_file=str(file))
    nearest.host.expect(Started)
    nearest.host.send(Ping(3))
    assert nearest.host.expect(Pong).queued == 1
    with pytest.raises(TimeoutError):
        nearest.host.expect(TileDone, timeout=0.3)
    assert not file.exists()


def test_it_is_as_slow_as_it_is_told(nearest: Bench) -> None:
    nearest.host.load("nearest-x4")
    started = time.monotonic()
    nearest.host.upscale([PLAIN, PLAIN], delay=0.2)
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize("kind", ["oom", "input", "transient", "fatal"])
def test_loading_fails_as_told(nearest: Bench, kind: str) -> None:
    nearest.host.send(Load(5, "k", "nearest-x4", params={"load_fail": kind}))
    assert nearest.host.expect(Failed).failure == kind
    if kind == "fatal":
        assert nearest.process.wait(5.0) == 1


def test_loading_crashes_as_told(nearest: Bench) -> None:
    nearest.host.send(Load(5, "k", "nearest-x4", params={"load_fail": "crash"}))
    assert nearest.process.wait(5.0) == 70


def test_a_slow_load_reports_its_progress(nearest: Bench) -> None:
    nearest.host.load("nearest-x4", load_delay=0.3)
    done = [m.message.done for m in nearest.host.skipped if isinstance(m.message, Progress)]
    assert done == sorted(done)
    assert len(done) == 10
