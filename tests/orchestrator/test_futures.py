"""Waiting for a picture: an interrupt is never lost, a deadline is kept."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from concurrent.futures import Future

import pytest

from upx import futures
from upx.errors import CancelledError
from upx.futures import JobFuture, wait_for
from upx.result import Record, Result


def test_a_result_is_there_as_soon_as_it_is_known():
    future: Future[int] = Future()
    threading.Timer(0.05, future.set_result, [7]).start()
    began = time.monotonic()
    assert wait_for(future) == 7
    assert time.monotonic() - began < 5


def test_who_waits_for_ever_wakes_now_and_then_so_that_signals_are_noticed(monkeypatch):
    future: Future[int] = Future()
    waits = []

    def counted(some, timeout):
        waits.append(timeout)
        if len(waits) == 3:
            future.set_result(1)
        return concurrent.futures.wait(some, timeout=0)

    monkeypatch.setattr(futures, "wait", counted)
    assert wait_for(future) == 1
    assert waits == [futures.WAKE_S] * 3


def test_a_deadline_is_kept():
    with pytest.raises(TimeoutError):
        wait_for(Future(), timeout=0.05)


def test_an_error_of_the_job_is_raised_as_it_is():
    future = JobFuture()
    future.settle(error=KeyError("x"))
    with pytest.raises(KeyError):
        future.wait()


def test_a_cancelled_picture_says_so_in_our_own_words():
    future = JobFuture()
    assert future.cancel()
    assert future.stop.is_set()
    with pytest.raises(CancelledError, match="cancelled"):
        future.wait()


def test_an_interrupt_of_who_waits_cancels_the_job(monkeypatch):
    future = JobFuture()

    def interrupted(some, timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(futures, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        future.wait()
    assert future.stop.is_set()


def test_a_result_that_comes_after_the_cancel_is_let_go():
    future = JobFuture()
    future.cancel()
    future.settle(result=Result(None, Record("a", None, "done")))
    assert future.cancelled()
