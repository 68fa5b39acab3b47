"""What a worker logs: where to, and how much of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from upx_protocol.actions import Imported, Kept, Logged
from upx_protocol.logs import ALIKE_S, MAX_ALIKE, MAX_KINDS, PRIVATE, Throttle
from upx_protocol.loop import MAX_BACKLOG, Loop
from upx_protocol.messages import Failed, Load, Log
from upx_protocol.options import WorkerOptions
from upx_protocol.upscaler import DeviceInfo
from upx_protocol.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunningWorker
    from upx_protocol.testing import FakeHost


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(text: str, *args: Any, name: str = "upx.worker", level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, text, args, None)


def test_so_many_of_a_kind_pass_and_the_next_after_that_says_how_many_did_not() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    passed = [throttle.filter(record("%s is not loaded", number)) for number in range(MAX_ALIKE + 7)]
    assert passed == [True] * MAX_ALIKE + [False] * 7
    assert throttle.filter(record("%s is not loaded", 1, level=logging.ERROR)), "another kind"
    assert throttle.filter(record("something else"))
    clock.now = ALIKE_S + 0.1
    again = record("%s is not loaded", "span")
    assert throttle.filter(again)
    assert again.getMessage() == "span is not loaded (7 like it were left out)"
    last = record("%s is not loaded", "span")
    assert throttle.filter(last)
    assert last.getMessage() == "span is not loaded"


def test_kinds_without_end_take_no_memory_without_end() -> None:
    throttle = Throttle(Clock())
    for number in range(10 * MAX_KINDS):
        assert throttle.filter(record(f"{number} of its own"))
    assert len(throttle._kinds) <= MAX_KINDS


def test_records_are_left_out_while_too_much_waits_to_be_learnt_and_nothing_else_is(sockets: Path) -> None:
    wake = Wake()
    loop = Loop(WorkerOptions("toy", "toy", f"ipc://{sockets}/loop.sock"), wake)
    loop._lead.take()
    for number in range(2 * MAX_BACKLOG):
        loop.report(Logged("INFO", "toy", str(number), 0.0))
    assert [each.message for each in loop._outcomes] == [str(number) for number in range(MAX_BACKLOG)]
    loop.report(Kept(1))
    loop.report(Imported(DeviceInfo()))
    assert len(loop._outcomes) == MAX_BACKLOG + 2
    loop._outcomes.clear()
    loop.report(Logged("INFO", "toy", "again", 0.0))
    assert len(loop._outcomes) == 1
    loop._router.close()
    loop._context.term()
    wake.close()


def test_the_door_counts_for_itself() -> None:
    throttle = Throttle(Clock())
    assert all(throttle.filter(record("refused", name=PRIVATE)) for _ in range(10 * MAX_ALIKE))


@pytest.mark.parametrize("serves", [False, True])
def test_loads_that_fail_without_end_fill_no_log_of_a_worker_that_serves_others(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost], *, serves: bool
) -> None:
    worker = start(box="attic", tied=False) if serves else start()
    host, other = connect(worker), connect(worker)
    for _ in range(100):
        host.send(Load(host.number(), "key", "m" * 70, params={"fail": "input"}))
        host.expect(Failed)
    other.load("any")
    other.upscale([np.zeros((4, 4, 3), np.uint8)])
    told = [received for received in (*host.skipped, *other.skipped) if isinstance(received.message, Log)]
    assert worker.stderr.count("told to") == (MAX_ALIKE if serves else 100)
    assert bool(told) is not serves
