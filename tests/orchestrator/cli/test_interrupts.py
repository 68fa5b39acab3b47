"""The signals of the process: the first puts everything away, a later one ends at once."""

from __future__ import annotations

import os
import signal
import time

import pytest

from upx.__main__ import Interrupts


@pytest.fixture
def left(monkeypatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_the_first_signal_interrupts_and_its_echo_is_ignored(monkeypatch, left) -> None:
    interrupts = Interrupts()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    with pytest.raises(KeyboardInterrupt):
        interrupts.handle(signal.SIGINT, None)
    monkeypatch.setattr(time, "monotonic", lambda: 100.9)
    interrupts.handle(signal.SIGINT, None)
    assert left == []


def test_a_second_signal_that_somebody_meant_ends_at_once(monkeypatch, left) -> None:
    interrupts = Interrupts()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    with pytest.raises(KeyboardInterrupt):
        interrupts.handle(signal.SIGTERM, None)
    monkeypatch.setattr(time, "monotonic", lambda: 101.5)
    interrupts.handle(signal.SIGINT, None)
    assert left == [130]


def test_a_signal_that_the_parent_told_us_to_ignore_stays_ignored(monkeypatch) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        Interrupts().install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
