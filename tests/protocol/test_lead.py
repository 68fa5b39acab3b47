"""Who holds a worker's socket: two threads that are never at it together, and one of them always in time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from upx_protocol import lead as leads
from upx_protocol.lead import PATIENCE_S, Lead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Listener(threading.Thread):
    """An I/O thread that listens as the worker's does: until the main thread is back."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bell = threading.Event()
        self.lead = Lead(self.bell.set)
        self.listens = threading.Event()
        self.turns = 0
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            self.lead.stand_by()
            self.turns += 1
            self.listens.set()
            while self.lead.away and not self.ended:
                self.bell.wait(5)
                self.bell.clear()
            self.listens.clear()
            self.lead.drop()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    made.start()
    assert made.listens.wait(5), "before the main thread has listened at all, the other does"
    yield made
    made.ended = True
    made.bell.set()
    if not made.lead.seize():
        made.join(5)
        return
    made.lead.part()
    made.join(5)
    assert not made.is_alive()


def soon(what: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.002)
    return False


def test_the_main_thread_gets_the_socket_at_once_when_it_wants_it(listener: Listener) -> None:
    began = time.monotonic()
    listener.lead.take()
    assert time.monotonic() - began < 1.0
    assert not listener.listens.is_set()
    assert not listener.lead.seize(), "it has it"
    listener.lead.leave()


def test_short_absences_are_nobodys_business(listener: Listener) -> None:
    listener.lead.take()
    for _ in range(200):
        listener.lead.leave()
        listener.lead.take()
    assert listener.turns == 1
    listener.lead.leave()


def test_the_io_thread_listens_when_the_main_thread_is_away_for_long(listener: Listener) -> None:
    for _ in range(3):
        listener.lead.take()
        listener.lead.leave()
        assert listener.listens.wait(5)
        assert not listener.lead.seize()


def test_between_two_tiles_the_main_thread_may_have_it_for_a_moment(listener: Listener) -> None:
    listener.lead.take()
    listener.lead.leave()
    if listener.lead.seize():  # not if this machine took more than the patience for two lines
        listener.lead.drop()
    assert listener.listens.wait(5)


def test_after_a_long_silence_the_io_thread_is_there_again(monkeypatch: pytest.MonkeyPatch, listener: Listener) -> None:
    monkeypatch.setattr(leads, "WATCHFUL_S", 0.05)
    for _ in range(3):
        listener.lead.take()
        assert soon(lambda: not listener.lead._work.is_set()), "it sleeps while there is no work"
        listener.lead.leave()
        assert listener.listens.wait(5)


def test_a_main_thread_that_leaves_for_good_is_followed_at_once(listener: Listener) -> None:
    listener.lead.take()
    began = time.monotonic()
    listener.lead.part()
    assert listener.listens.wait(5)
    assert time.monotonic() - began < 1.0 + PATIENCE_S
