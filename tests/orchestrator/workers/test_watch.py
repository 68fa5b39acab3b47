"""Looking at workers: what is seen, that nobody is disturbed, and what becomes of those that do not answer."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import zmq
from worker_kit import noise, until

from upx.errors import ProtocolVersionError, WorkerStartError
from upx.private_files import write_private
from upx.workers import endpoints, registry
from upx.workers.channel import new_key_pair
from upx.workers.endpoints import ClientKeys
from upx.workers.watch import NEAR_S, Target, Watcher
from upx.workers.words import LONGEST, tame
from upx_protocol.codec import decode, encode
from upx_protocol.messages import Bye, Hello, Ping, Pong, Reject, Welcome
from upx_protocol.testing import Conduct, FakeWorker
from upx_protocol.version import NEWEST, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upx_protocol.messages import Message

TILE = noise(1, 16)


@pytest.fixture
def watcher(settings) -> Iterator[Watcher]:
    made = Watcher(settings)
    yield made
    made.close()


def the_only(settings) -> Target:
    (info,) = registry.list_workers(settings)
    return Target.of(info)


class Peer:
    """Something on a socket that answers as a test wants it to, and keeps what it heard."""

    def __init__(self, endpoint: str, answer: Callable[[Message], list[Message]]) -> None:
        self.heard: list[Message] = []
        self._answer, self._stop = answer, threading.Event()
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind(endpoint)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._router.poll(20):
                peer, *parts = self._router.recv_multipart()
                message = decode(parts).message
                self.heard.append(message)
                for each in self._answer(message):
                    self._router.send_multipart([peer, *encode(each, session="s")])
        self._router.close()

    def of(self, kind: type) -> list[Message]:
        return [each for each in self.heard if isinstance(each, kind)]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.term()


@pytest.fixture
def peer(settings) -> Iterator[Callable[..., tuple[Peer, Target]]]:
    """``peer(answer)``: a worker of a box, and where it is."""
    made: list[Peer] = []

    def start(answer: Callable[[Message], list[Message]]) -> tuple[Peer, Target]:
        endpoint = endpoints.new_endpoint(settings, "ipc")
        made.append(Peer(endpoint, answer))
        return made[-1], Target("attic:7600", endpoint, box="attic")

    yield start
    for each in made:
        each.close()


def polite(message: Message) -> list[Message]:
    if isinstance(message, Hello):
        return [Welcome(message.id, "s", NEWEST, "span", ports=(7600, 7601))]
    return [Pong(message.nonce, age_s=1.0)] if isinstance(message, Ping) else []


def test_a_worker_tells_what_it_has_done_and_whoever_looks_is_no_host(settings, plan, open_pool, watcher) -> None:
    eyes = open_pool(plan)
    eyes.up(TILE, TILE)
    target = the_only(settings)
    first, second = watcher.look([target])[target].pong, watcher.look([target])[target].pong
    assert (second.hosts, second.queued, second.model) == (1, 0, "nearest-x4")
    assert (second.tiles_done, second.pixels_done) == (2, 2 * 16 * 16)
    assert second.age_s > first.age_s
    (info,) = registry.list_workers(settings)
    assert info.hosts == 1


def test_a_worker_that_computes_answers_and_counts_what_waits(settings, plan, open_pool, watcher) -> None:
    eyes = open_pool(plan)
    eyes.up(TILE)
    waiting = [eyes.submit(TILE, delay=0.4)[0] for _ in range(3)]
    eyes.in_flight()
    target = the_only(settings)
    assert watcher.look([target])[target].pong.queued > 0
    for each in waiting:
        each.result(30)


def test_an_idle_worker_that_is_looked_at_all_the_time_still_ends_in_its_time(
    settings, plan, open_pool, watcher
) -> None:
    eyes = open_pool(replace(plan, keep_alive=1.0))
    eyes.up(TILE)
    target = the_only(settings)
    eyes.pool.close()
    for _ in until(15, step=0.1):
        watcher.look([target])
        if not registry.list_workers(settings):
            break
    assert not registry.list_workers(settings)


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_both_transports_can_be_looked_at(settings, plan, open_pool, watcher, transport) -> None:
    open_pool(plan, transport=transport).up(TILE)
    target = the_only(settings)
    assert watcher.look([target])[target].pong.tiles_done == 1


def test_one_that_is_stopped_is_waited_for_once_and_is_seen_again_later(settings, plan, open_pool, watcher) -> None:
    eyes = open_pool(replace(plan, keep_alive=60.0))
    eyes.up(TILE)
    pid, target = eyes.pids()[0], the_only(settings)
    eyes.pool.close()
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = watcher.look([target])[target]
        assert "does not answer" in str(answer.error)
        assert NEAR_S <= time.monotonic() - began < NEAR_S + 5.0
        began = time.monotonic()
        assert watcher.look([target])[target].pong is None
        assert time.monotonic() - began < NEAR_S
    finally:
        os.kill(pid, signal.SIGCONT)
    for _ in until(10):
        if watcher.look([target])[target].pong is not None:
            break
    assert watcher.look([target])[target].error is None


def test_a_worker_of_an_older_release_is_said_to_be_one(settings, watcher) -> None:
    with FakeWorker(endpoints.new_endpoint(settings, "ipc")) as worker:
        target = Target("span-0", worker.endpoint)
        answer = watcher.look([target])[target]
        assert isinstance(answer.error, ProtocolVersionError)
        assert "span-0 is of an older release" in str(answer.error)
        assert len(worker.heard) == 1, "and is left in peace"
        assert watcher.look([target])[target].error == answer.error
        assert len(worker.heard) == 1


def test_a_box_of_another_version_is_refused_with_both_ranges(settings, watcher) -> None:
    with FakeWorker(
        endpoints.new_endpoint(settings, "ipc"), Conduct(versions=(Version(7, 1), Version(8, 2)))
    ) as worker:
        target = Target("attic:7600", worker.endpoint, box="attic")
        with pytest.raises(ProtocolVersionError, match=r"attic speaks protocol 7\.1 to 8\.2.*1\.0 to 1\.1"):
            raise watcher.look([target])[target].error


def test_a_box_is_greeted_once_and_left_at_once_and_then_only_asked(peer, watcher) -> None:
    box, target = peer(polite)
    for _ in range(5):
        answer = watcher.look([target])[target]
    assert (answer.backend, answer.ports, answer.error) == ("span", (7600, 7601), None)
    assert (len(box.of(Hello)), len(box.of(Bye)), len(box.of(Ping))) == (1, 1, 5)
    assert box.heard.index(box.of(Bye)[0]) < box.heard.index(box.of(Ping)[0]), "we are not among the hosts it counts"


def test_a_box_that_takes_no_more_hosts_is_looked_at_all_the_same(peer, watcher) -> None:
    _, target = peer(lambda m: [Reject(m.id, "busy", "too many hosts")] if isinstance(m, Hello) else polite(m))
    assert watcher.look([target])[target].pong is not None


def test_a_key_that_is_revoked_meanwhile_is_told_what_to_do(peer, watcher) -> None:
    revoked = threading.Event()
    _, target = peer(lambda m: [Reject(0, "revoked")] if revoked.is_set() and isinstance(m, Ping) else polite(m))
    assert watcher.look([target])[target].error is None
    revoked.set()
    answer = watcher.look([target])[target]
    assert "does not let this machine in" in str(answer.error)
    assert "upx key allow" in answer.error.hint


def test_an_answer_to_another_question_is_none(peer, watcher) -> None:
    _, target = peer(lambda m: [Pong(m.nonce + 7)] if isinstance(m, Ping) else polite(m))
    assert watcher.look([target], most=0.3)[target].pong is None


def test_who_is_lost_is_looked_for_again_after_pauses_that_grow(settings) -> None:
    now = [100.0]
    watcher = Watcher(settings, clock=lambda: now[0])
    target, tries = Target("gone-0", endpoints.new_endpoint(settings, "ipc")), []
    try:
        for _ in range(40):
            before = watcher._lost.get(target)
            assert isinstance(watcher.look([target])[target].error, WorkerStartError)
            for _ in until(10):
                # Nobody waits for one that was lost: the end of a try is heard by a later look.
                if target not in watcher._watches:
                    break
                assert isinstance(watcher.look([target])[target].error, WorkerStartError)
            if watcher._lost.get(target) != before:
                tries.append(now[0] - 100.0)
            now[0] += 1.0
    finally:
        watcher.close()
    assert tries == [0.0, 2.0, 6.0, 14.0, 30.0]


@pytest.mark.parametrize(
    "bad",
    [
        Target("address", "ipc:///" + "x" * 200),
        Target("key", "tcp://127.0.0.1:1", "no key", keys=ClientKeys(*new_key_pair())),
        Target("ours", "tcp://127.0.0.1:1"),
    ],
    ids=lambda target: target.name,
)
def test_one_that_cannot_be_connected_to_spoils_no_look_at_the_others(peer, watcher, settings, bad) -> None:
    _, other = peer(polite)
    for name in ("client.json", "worker.json"):
        write_private(settings.state_dir / "curve" / name, "{")
    for _ in range(2):
        answers = watcher.look([bad, other])
        assert answers[bad].error.hint
        assert answers[other].pong is not None


def test_what_is_not_looked_at_any_more_is_let_go(peer, watcher) -> None:
    _, target = peer(polite)
    watcher.look([target])
    assert watcher.look([]) == {}
    assert not watcher._watches


def test_ports_that_are_none_and_words_that_a_terminal_obeys_are_not_passed_on(peer, watcher) -> None:
    def nasty(message: Message) -> list[Message]:
        if isinstance(message, Hello):
            return [Welcome(1, "s", NEWEST, "sp\x1b[2Jan\nx", ports=(7600, -1, 0, 70000, 2**60, 7600, *range(1, 200)))]
        return polite(message)

    _, target = peer(nasty)
    answer = watcher.look([target])[target]
    assert answer.backend == "sp [2Jan x"
    assert len(answer.ports) == 64
    assert all(0 < port <= 65_535 for port in answer.ports)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("NVIDIA H200", "NVIDIA H200"),
        ("a\x1b]0;title\x07b", "a ]0;title b"),
        ("a\u202eb\u200bc", "a b c"),
        ("two\nlines\r\n", "two lines"),
        ("\x9b31mred", "31mred"),
        ("", ""),
    ],
)
def test_words_of_others_are_tamed(said, seen) -> None:
    assert tame(said) == seen


def test_long_words_of_others_are_cut() -> None:
    assert len(tame("x" * 16_384)) == LONGEST
    assert tame("x" * 16_384).endswith("x…")
