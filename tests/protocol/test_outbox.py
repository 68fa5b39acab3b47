"""What waits for hosts: in order for each, on nobody else's account, and not for ever."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import zmq

from upx_protocol import outbox as outboxes
from upx_protocol.actions import Send
from upx_protocol.codec import decode
from upx_protocol.messages import Credit, Loaded, Pong, TileDone
from upx_protocol.outbox import MAX_WAITING, STUCK_S, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

TILE = np.zeros((64, 64, 3), np.uint8)


class Tracker:
    """ZeroMQ's word that it needs a part's memory no more."""

    done = False


class Router:
    """Takes so many messages for each peer before its queue is full."""

    def __init__(self) -> None:
        self.room: Counter[bytes] = Counter()
        self.got: dict[bytes, list[Any]] = {}
        self.lost: set[bytes] = set()
        self.trackers: list[Tracker] = []
        self._parts: list[Any] = []

    def send(self, part: Any, flags: int, *, copy: bool = True, track: bool = False) -> Tracker | None:
        if not self._parts:
            if part in self.lost:
                raise zmq.ZMQError(zmq.EHOSTUNREACH)
            if not self.room[part]:
                raise zmq.Again
        self._parts.append(part)
        if not flags & zmq.SNDMORE:
            peer, *message = self._parts
            self._parts = []
            self.room[peer] -= 1
            self.got.setdefault(peer, []).append(decode(message).message)
        if track:
            self.trackers.append(Tracker())
            return self.trackers[-1]
        return None


class Desk:
    """An outbox, its router, and what it told."""

    def __init__(self, *, weigh: bool = False) -> None:
        self.router, self.sent, self.gone, self.ended = Router(), list[Send](), list[bytes](), set[str]()
        self.box = Outbox(
            cast("Any", self.router), sent=self.sent.append, gone=self.gone.append,
            lives=lambda session: session not in self.ended, weigh=weigh, pipe=lambda _session, _header: False,
        )  # fmt: skip

    def say(self, peer: bytes, number: int, *, session: str = "s", lossy: bool = False) -> None:
        message = Pong(number) if lossy else Credit(number, 0)
        self.box.send(Send(peer, message, session, lossy=lossy))

    def deliver(self, peer: bytes, number: int, *, session: str = "s", tile: Any = TILE) -> None:
        self.box.send(Send(peer, TileDone(number, 0, 0, ()), session, (tile,)))

    def got(self, peer: bytes) -> list[int]:
        return [message.tiles if isinstance(message, Credit) else message.id for message in self.router.got[peer]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [0.0]
    monkeypatch.setattr(outboxes.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_each_peer_hears_everything_in_order_and_none_waits_for_another() -> None:
    desk = Desk()
    desk.router.room.update({b"a": 1, b"b": 100})
    for number in range(3):
        desk.say(b"a", number)
        desk.say(b"b", number)
    assert desk.got(b"a") == [0]
    assert desk.got(b"b") == [0, 1, 2]
    assert desk.box
    desk.router.room[b"a"] = 1
    desk.box.flush()
    # There is room again, and what waits comes first.
    desk.router.room[b"a"] = 1
    desk.say(b"a", 3)
    assert desk.got(b"a") == [0, 1]
    desk.router.room[b"a"] = 5
    desk.box.flush()
    assert desk.got(b"a") == [0, 1, 2, 3]
    assert not desk.box


def test_what_may_be_lost_is_where_something_waits() -> None:
    desk = Desk()
    desk.say(b"a", 1)
    desk.router.room[b"a"] = 9
    desk.say(b"a", 2, lossy=True)
    desk.box.flush()
    assert desk.got(b"a") == [1]


def test_who_leaves_too_much_unread_is_lost_and_nobody_else() -> None:
    desk = Desk()
    for number in range(MAX_WAITING):
        desk.say(b"a", number)
    desk.say(b"b", 1)
    assert desk.gone == []
    desk.say(b"a", MAX_WAITING)
    assert desk.gone == [b"a"]
    desk.router.room.update({b"a": 1, b"b": 1})
    desk.box.flush()
    assert desk.got(b"b") == [1]
    assert b"a" not in desk.router.got


def test_who_reads_nothing_is_lost_after_a_while_and_who_reads_slowly_is_not(clock: Callable[[float], None]) -> None:
    desk = Desk()
    for number in range(6):
        desk.say(b"slow", number)
        desk.say(b"dead", number)
    for _ in range(4):
        desk.router.room[b"slow"] = 1
        desk.box.flush()
        clock(STUCK_S - 1)
    assert desk.gone == [b"dead"]
    assert desk.got(b"slow") == [0, 1, 2, 3]


def test_a_host_that_is_gone_is_told_of_once_and_takes_what_waited_with_it() -> None:
    desk = Desk()
    for number in range(3):
        desk.say(b"a", number)
    desk.router.lost.add(b"a")
    desk.box.flush()
    assert desk.gone == [b"a"]
    assert not desk.box


@pytest.mark.parametrize(
    "answer", [Loaded(1, "load", key="\N{GRINNING FACE}" * 16_340), Credit(2**64, 0), Pong(object())]
)
def test_an_answer_that_cannot_be_said_costs_its_host_the_session_and_nobody_else_anything(answer: Any) -> None:
    desk = Desk()
    desk.router.room.update({b"a": 9, b"b": 9})
    desk.box.send(Send(b"a", answer, "s"))
    assert desk.gone == [b"a"]
    desk.say(b"b", 1)
    assert desk.got(b"b") == [1]


def test_an_answer_that_cannot_be_said_takes_with_it_what_waits_behind_it() -> None:
    desk = Desk()
    desk.say(b"a", 1)
    desk.box.send(Send(b"a", Credit(2**64, 0), "s"))
    desk.say(b"a", 2)
    desk.router.room[b"a"] = 9
    desk.box.flush()
    assert desk.got(b"a") == [1]
    assert desk.gone == [b"a"]
    assert not desk.box


def test_results_of_a_session_that_has_ended_are_not_kept_for_the_next_one_of_its_peer() -> None:
    desk = Desk()
    desk.deliver(b"a", 1, session="old")
    desk.say(b"a", 2, session="old")
    desk.ended.add("old")
    desk.deliver(b"a", 3, session="new")
    desk.router.room[b"a"] = 9
    desk.box.flush()
    assert desk.got(b"a") == [2, 3]


def test_zeromq_is_given_no_more_results_at_a_time_than_a_link_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "MOST_FLYING", TILE.nbytes)
    desk = Desk(weigh=True)
    desk.router.room.update({b"a": 99, b"b": 99})
    for number in range(4):
        desk.deliver(b"a", number)
    desk.deliver(b"b", 9)
    # Two: more than that much is on its way only then.
    assert desk.got(b"a") == [0, 1]
    assert desk.got(b"b") == [9]
    desk.router.trackers[0].done = True
    desk.box.flush()
    assert desk.got(b"a") == [0, 1, 2]
    for tracker in desk.router.trackers:
        tracker.done = True
    desk.box.flush()
    assert desk.got(b"a") == [0, 1, 2, 3]
    assert not desk.box


REAL = """
import numpy as np, zmq
context = zmq.Context()
router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
port = router.bind_to_random_port("tcp://127.0.0.1")
dealer.setsockopt(zmq.ROUTING_ID, b"a")
dealer.connect(f"tcp://127.0.0.1:{port}")
dealer.send(b"here")
assert router.poll(10_000)
router.recv_multipart()
data = np.zeros(50_000_000, np.uint8)
router.send(b"a", zmq.SNDMORE)
large = router.send(data, copy=False, track=True)
router.send(b"a", zmq.SNDMORE)
small = router.send(data[:10], copy=False, track=True)
assert small.done and not large.done
assert dealer.poll(10_000)
dealer.recv()
large.wait(10.0)
assert large.done
context.destroy(0)
"""


def test_zeromq_tells_when_it_needs_a_results_memory_no_more() -> None:
    """Of the real one, in a process of its own, since pyzmq keeps a thread for it."""
    ended = subprocess.run([sys.executable, "-c", REAL], timeout=30, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
