"""The worker as a process: what it answers, and that it goes on answering."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from upx_protocol.actions import Failure
from upx_protocol.messages import (
    Accepted,
    Buffer,
    Cancel,
    Cancelled,
    Credit,
    Failed,
    Hello,
    Load,
    Loaded,
    Log,
    Ping,
    Pong,
    Progress,
    Ready,
    Reject,
    Started,
    TileDone,
    Unload,
    Upscale,
)
from upx_protocol.packing import PACKING, Packed, opened, packed
from upx_protocol.version import NEWEST, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunningWorker
    from upx_protocol.testing import FakeHost

TILE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
DOUBLED = TILE.repeat(2, axis=0).repeat(2, axis=1)


def test_results_come_packed_where_that_is_asked_for_and_makes_them_smaller(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start())
    assert host.hello(features=(PACKING, "unheard-of")).features == (PACKING,)
    host.load("any")
    smooth = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3) // 3
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    small = TILE[:1, :1]
    for tiles, codec, came in (
        ([packed(smooth), noise], "deflate", "deflate"),
        ([packed(smooth), noise], "raw", "raw"),
        ([noise], "unheard-of", "raw"),
        ([small], "deflate", "raw"),
    ):
        host.send(Upscale(host.number(), 0, host.load_id, (), codec=codec), arrays=tiles)
        for tile in (small,) if tiles[0] is small else (smooth, noise)[-len(tiles) :]:
            received = host.expect_received(TileDone)
            assert isinstance(received.message, TileDone)
            assert received.message.bufs[0].codec == came
            result = opened(received.message.bufs[0], received.buffers[0])
            np.testing.assert_array_equal(result, tile.repeat(2, axis=0).repeat(2, axis=1))


def test_a_packed_tile_that_does_not_unfold_fails_its_batch_alone(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start())
    host.load("any")
    for nbytes, shape in ((300, (10, 10, 3)), (3 << 40, (1 << 20, 1 << 20, 3))):
        bad = Packed(Buffer("uint8", shape, nbytes, codec="deflate"), b"no zlib at all")
        host.send(Upscale(host.number(), 0, host.load_id, ()), arrays=[bad])
        failed = host.expect(Failed)
        assert (failed.failure, "packed tile" in failed.message) == ("input", True)
    np.testing.assert_array_equal(host.upscale([TILE])[0], DOUBLED)


def test_a_worker_greets_loads_and_answers_every_tile_of_a_batch(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start())
    host.expect(Ready)
    loaded = host.load("any")
    assert loaded.scale == 2
    assert loaded.key == "key"
    first, second = host.upscale([TILE, TILE + 1])
    np.testing.assert_array_equal(first, DOUBLED)
    np.testing.assert_array_equal(second, DOUBLED + 1)
    order = [type(received.message) for received in host.skipped]
    assert order.index(Accepted) < order.index(Started)
    assert Progress in order


@pytest.mark.parametrize("sent", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("asked", ["uint8", "uint16", "float16", "float32"])
def test_a_tile_is_delivered_in_the_dtype_asked_for(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], sent: str, asked: str
) -> None:
    host = connect(start())
    host.load("any")
    tops = {"uint8": 255, "uint16": 65535, "float16": 1.0, "float32": 1.0}
    levels = np.array([0, 51, 255], dtype=np.float64) / 255
    tile = np.ascontiguousarray(np.broadcast_to(levels * tops[sent], (2, 3, 3)), dtype=sent)
    (result,) = host.upscale([tile], out_dtype=asked)
    assert result.dtype.name == asked
    assert result.shape == (4, 6, 3)
    allowed = 0.5 if asked.startswith("uint") else 0.0
    exact = 1e-3 if "float16" in (sent, asked) else 1e-6
    np.testing.assert_allclose(result[0, 0], levels * tops[asked], atol=allowed + exact * tops[asked])


def test_ping_is_answered_while_the_main_thread_computes(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start())
    host.load("any")
    host.submit([TILE], sleep=1.0)
    host.expect(Started)
    asked = time.monotonic()
    host.send(Ping(7))
    pong = host.expect(Pong, timeout=0.5)
    assert time.monotonic() - asked < 0.5
    assert (pong.nonce, pong.queued, pong.hosts) == (7, 1, 1)
    host.expect(TileDone)


@pytest.mark.parametrize(
    ("told", "failure", "retryable"),
    [
        ("oom", "oom", True),
        ("memory", "oom", True),
        ("input", "input", False),
        ("transient", "transient", True),
        ("bug", "fatal", False),
        ("exit", "fatal", False),
    ],
)
def test_a_failing_batch_is_told_by_class_and_the_next_one_succeeds(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], told: str, failure: str, *, retryable: bool
) -> None:
    host = connect(start())
    host.load("any")
    host.submit([TILE, TILE], fail=told)
    failed = host.expect(Failed)
    assert (failed.failure, failed.retryable) == (failure, retryable)
    assert host.expect(Credit) == Credit(2, 2 * TILE.nbytes)
    np.testing.assert_array_equal(host.upscale([TILE])[0], DOUBLED)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16 bytes"),
            "oom",
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), "fatal"),
        (ValueError("out of memory"), "fatal"),
    ],
)
def test_no_memory_is_known_by_the_words_that_torch_has_for_it(error: Exception, failure: str) -> None:
    assert Failure.of(error).failure == failure


def test_an_unexpected_exception_reaches_the_host_as_a_log_with_its_traceback(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    host = connect(worker)
    host.load("any")
    host.submit([TILE], fail="bug")
    log = host.expect(Log)
    assert log.level == "ERROR"
    assert "Traceback" in log.message
    assert "ZeroDivisionError" in log.message
    assert "ZeroDivisionError" in worker.stderr


@pytest.mark.parametrize("lie", ["short", "nan", "crop"])
def test_a_result_that_breaks_the_contract_fails_its_batch_and_is_never_delivered(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], lie: str
) -> None:
    host = connect(start())
    host.load("any")
    host.submit([TILE, TILE], **{lie: True})
    assert host.expect(Failed).failure == "fatal"
    assert not [received for received in host.skipped if isinstance(received.message, TileDone)]


def test_a_failed_load_leaves_nothing_resident_and_the_next_load_succeeds(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start())
    host.load("any")
    host.send(Load(50, "other", "any", params={"fail": "oom"}))
    assert host.expect(Failed).failure == "oom"
    host.submit([TILE])
    failed = host.expect(Failed)
    assert (failed.failure, failed.message) == ("input", "load")
    host.load("any", key="again")
    np.testing.assert_array_equal(host.upscale([TILE])[0], DOUBLED)


def test_the_same_key_is_no_work_and_the_same_load_id_for_every_host(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    first, second = connect(worker), connect(worker)
    loaded = first.load("any")
    assert second.load("any").load_id == loaded.load_id
    second.send(Load(9, "other", "any"))
    assert second.expect(Reject).reason == "busy"
    second.send(Unload(10))
    assert second.expect(Reject).reason == "busy"
    np.testing.assert_array_equal(first.upscale([TILE])[0], DOUBLED)


def test_a_load_that_cannot_be_repeated_in_an_answer_is_refused_and_the_worker_goes_on(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start())
    # Of the longest header there is, to which an answer has more to say.
    host.send(Load(1, "\N{GRINNING FACE}" * 16_340, "any"))
    assert host.expect(Failed).failure == "input"
    host.send(Load(2, "key", "any", weights="\N{GRINNING FACE}" * 16_330))
    assert host.expect(Failed).failure == "input"
    assert host.load("any").load_id


def test_a_batch_is_refused_after_unload(start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]) -> None:
    host = connect(start())
    host.load("any")
    host.send(Unload(60))
    assert host.expect(Loaded).load_id == ""
    host.submit([TILE])
    assert host.expect(Failed).message == "load"


def test_a_queued_batch_is_cancelled_at_once_and_a_computing_one_when_it_ends(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start())
    host.load("any")
    computing, queued = host.submit([TILE], sleep=0.6), host.submit([TILE])
    host.expect(Started)
    host.send(Cancel(queued))
    assert host.expect(Cancelled, timeout=0.4).id == queued
    host.send(Cancel(computing))
    with pytest.raises(TimeoutError):
        host.expect(Cancelled, timeout=0.2)
    assert host.expect(Cancelled).id == computing
    assert host.expect(Credit).tiles == 1
    assert not [received for received in host.skipped if isinstance(received.message, TileDone)]


def test_more_than_the_credit_allows_is_dropped_and_said(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start(credit_tiles=2))
    host.load("any")
    numbers = [host.submit([TILE], sleep=0.2) for _ in range(3)]
    reject = host.expect(Reject)
    assert (reject.id, reject.reason) == (numbers[2], "credit")
    done = [host.expect(TileDone).id for _ in range(2)]
    assert done == numbers[:2]


def test_another_version_is_refused_with_both_ranges(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start(), hello=False)
    host.send(Hello(1, Version(2, 0), Version(3, 1)))
    reject = host.expect(Reject)
    assert reject.reason == "version"
    assert reject.protocol_max == NEWEST
    assert "2.0 to 3.1" in reject.message
    host.hello(newest=Version(9, 0))


def test_another_identity_is_refused(start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]) -> None:
    worker = start(env="e" * 12, build="b" * 12)
    host = connect(worker, hello=False)
    host.send(Hello(1, Version(1, 0), Version(1, 0), env="f" * 12))
    assert host.expect(Reject).reason == "identity"
    host.hello(env="e" * 12, build="b" * 12)


def test_a_session_is_its_own_hosts_alone(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    owner, thief = connect(worker), connect(worker, hello=False)
    thief.session = owner.session
    thief.send(Ping(1))
    assert thief.expect(Reject).reason == "session"
    owner.send(Ping(2))
    assert owner.expect(Pong).nonce == 2


def test_a_slow_import_delays_ready_but_not_welcome(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    host = connect(start(module="slow"))
    with pytest.raises(TimeoutError):
        host.expect(Ready, timeout=0.2)
    host.expect(Ready, timeout=5.0)
    host.load("any")


def test_the_entry_says_what_the_worker_is_and_does(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], tmp_path: Path
) -> None:
    entry = tmp_path / "entry.json"
    worker = start(entry=str(entry), identity="i" * 64)
    host = connect(worker)
    host.load("any-model")
    deadline = time.monotonic() + 5.0
    said: dict[str, object] = {}
    while said.get("model") != "any-model" and time.monotonic() < deadline:
        time.sleep(0.05)
        said = json.loads(entry.read_text())
    assert said["identity"] == "i" * 64
    assert said["pid"] == worker.process.pid
    assert said["endpoint"] == worker.options.endpoint
    assert (said["model"], said["hosts"], said["tied"]) == ("any-model", 1, True)


def test_a_batch_that_names_shared_memory_is_refused_since_none_was_agreed_on(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    from upx_protocol.messages import Buffer

    host = connect(start())
    host.load("any")
    buffer = Buffer("uint8", (1, 1, 3), 3, loc="shm", slot=0, gen=1)
    host.send(Upscale(70, 0, host.load_id, (buffer,), outs=(buffer,)))
    failed = host.expect(Failed)
    assert (failed.id, failed.failure) == (70, "input")
