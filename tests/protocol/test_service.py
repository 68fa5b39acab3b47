"""The service's decisions, step by step and without a socket."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from upx_protocol.actions import (
    BatchEnded,
    BatchTask,
    Failure,
    Imported,
    ImportFailed,
    Leave,
    LoadEnded,
    LoadTask,
    Retire,
    Run,
    Send,
    UnloadEnded,
)
from upx_protocol.codec import Received
from upx_protocol.messages import (
    Accepted,
    Buffer,
    Bye,
    Cancel,
    Cancelled,
    Credit,
    Drain,
    Drained,
    Failed,
    Hello,
    Load,
    Loaded,
    Message,
    Ping,
    Pong,
    Ready,
    Reject,
    Started,
    TileDone,
    Unknown,
    Unload,
    Upscale,
    Welcome,
)
from upx_protocol.options import SILENCE_S, WorkerOptions
from upx_protocol.service import Service
from upx_protocol.sessions import MAX_SESSIONS
from upx_protocol.upscaler import DeviceInfo, LoadResult
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Sequence

BUFFER = Buffer("uint8", (4, 4, 3), 48)
SLOT = Buffer("uint8", (4, 4, 3), 48, loc="shm", slot=1, gen=1)


class Bench:
    """A service, a clock, and a compute thread that is played by the test."""

    def __init__(self, **options: Any) -> None:
        told = {"tied": False, **options}
        self.now = 0.0
        tokens = (f"t{number}" for number in itertools.count())
        options_ = WorkerOptions("toy", "toy", "ipc:///x", **told)
        self.service = Service(options_, now=0.0, pid=7, token=lambda: next(tokens))
        self.running: list[Any] = []
        self.left: list[Leave] = []
        self.retired = 0

    def carry_out(self, actions: Sequence[Any]) -> list[tuple[bytes, Message]]:
        said = []
        for action in actions:
            if isinstance(action, Run):
                assert not self.running, "two tasks at once"
                self.running.append(action.task)
            elif isinstance(action, Send):
                said.append((action.peer, action.message))
                self.service.sent(action)
            elif isinstance(action, Leave):
                self.left.append(action)
            else:
                assert isinstance(action, Retire)
                self.retired += 1
        return said

    def say(self, peer: bytes, message: Message, session: str = "") -> list[Message]:
        received = Received(message, session, (b"",) * len(getattr(message, "bufs", ())))
        said = self.carry_out(self.service.receive(peer, received, self.now))
        return [answer for to, answer in said if to == peer]

    def outcome(self, outcome: Any) -> list[tuple[bytes, Message]]:
        if self.running and not isinstance(outcome, Imported):
            self.running.pop()
        return self.carry_out(self.service.outcome(outcome, self.now))

    def tick(self, seconds: float, *, unheard: float = 0.0) -> list[tuple[bytes, Message]]:
        self.now += seconds
        return self.carry_out(self.service.tick(self.now, unheard=unheard))

    def greet(self, peer: bytes) -> str:
        welcome = self.say(peer, Hello(1, OLDEST, NEWEST))[0]
        assert isinstance(welcome, Welcome)
        return welcome.session

    def ready(self) -> None:
        self.outcome(Imported(DeviceInfo()))

    def load(self, peer: bytes, session: str, key: str = "key") -> str:
        self.say(peer, Load(2, key, "model"), session)
        said = self.outcome(LoadEnded(LoadResult(scale=2)))
        (loaded,) = [message for to, message in said if to == peer and isinstance(message, Loaded)]
        return loaded.load_id


def upscale(number: int, load_id: str, *, tiles: int = 1, attempt: int = 0, **fields: Any) -> Upscale:
    return Upscale(number, attempt, load_id, (BUFFER,) * tiles, **fields)


def kinds(messages: Sequence[Any]) -> list[str]:
    return [(message[1] if isinstance(message, tuple) else message).kind() for message in messages]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.ready()
    return bench


def test_a_load_before_ready_waits_for_the_import() -> None:
    bench = Bench()
    session = bench.greet(b"a")
    assert bench.say(b"a", Load(2, "key", "model"), session) == []
    assert not bench.running
    assert kinds(bench.outcome(Imported(DeviceInfo()))) == ["Ready"]
    assert isinstance(bench.running[0], LoadTask)


def test_a_failed_import_is_told_to_every_host_and_ends_the_worker() -> None:
    bench = Bench()
    for peer in (b"a", b"b"):
        bench.greet(peer)
    said = bench.outcome(ImportFailed(Failure("fatal", False, "no torch")))
    assert [(to, m) for to, m in said if isinstance(m, Failed)] == [
        (b"a", Failed(0, 0, "fatal", False, "no torch")),
        (b"b", Failed(0, 0, "fatal", False, "no torch")),
    ]
    assert bench.left[0].status == 1
    assert bench.retired == 1


def test_hosts_that_want_the_model_that_is_being_loaded_wait_for_it_together(bench: Bench) -> None:
    first, second = bench.greet(b"a"), bench.greet(b"b")
    bench.say(b"a", Load(5, "key", "model"), first)
    assert bench.say(b"b", Load(6, "key", "model"), second) == []
    assert kinds(bench.say(b"b", Load(7, "other", "model"), second)) == ["Reject"]
    said = bench.outcome(LoadEnded(LoadResult(scale=4)))
    loaded = {to: message for to, message in said if isinstance(message, Loaded)}
    assert loaded[b"a"].load_id == loaded[b"b"].load_id
    assert (loaded[b"a"].id, loaded[b"b"].id) == (5, 6)


def test_a_lone_host_may_replace_the_model_and_stale_batches_are_refused(bench: Bench) -> None:
    session = bench.greet(b"a")
    old = bench.load(b"a", session, "old")
    bench.say(b"a", upscale(10, old), session)
    bench.say(b"a", upscale(11, old), session)
    bench.say(b"a", Load(12, "new", "model"), session)
    bench.outcome(BatchEnded((np.zeros((8, 8, 3), np.uint8),)))
    assert isinstance(bench.running[0], LoadTask)
    said = bench.outcome(LoadEnded(LoadResult(scale=2)))
    assert Failed(11, 0, "input", False, "load") in [message for _, message in said]
    assert Credit(1, 48) in [message for _, message in said]


def test_a_batch_is_accepted_started_answered_and_its_credit_given_back_tile_by_tile(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    assert kinds(bench.say(b"a", upscale(3, load_id, tiles=2), session)) == ["Accepted", "Started"]
    result = np.zeros((8, 8, 3), np.uint8)
    said = bench.outcome(BatchEnded((result, result), seconds=3.0))
    assert kinds(said) == ["TileDone", "Credit", "TileDone", "Credit"]
    done = [message for _, message in said if isinstance(message, TileDone)]
    assert [(message.index, message.seconds) for message in done] == [(0, 1.5), (1, 1.5)]


def test_the_next_batch_starts_before_the_answers_of_the_last_are_sent(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.say(b"a", upscale(3, load_id), session)
    bench.say(b"a", upscale(4, load_id), session)
    actions = bench.service.outcome(BatchEnded((np.zeros((8, 8, 3), np.uint8),)), 0.0)
    started, run, *answers = actions
    assert isinstance(started, Send)
    assert started.message == Started(4, 0)
    assert isinstance(run, Run)
    assert isinstance(run.task, BatchTask)
    assert run.task.ticket.request.id == 4
    assert kinds([action.message for action in answers]) == ["TileDone", "Credit"]


def test_a_credit_that_could_not_be_sent_is_still_spent(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    for number in range(4):
        bench.say(b"a", upscale(number + 10, load_id), session)
    bench.running.pop()
    # Not carried out: the host does not read, and nothing reaches it.
    bench.service.outcome(BatchEnded((np.zeros((8, 8, 3), np.uint8),)), 0.0)
    (answer,) = bench.say(b"a", upscale(20, load_id), session)
    assert isinstance(answer, Reject)
    assert answer.reason == "credit"


@pytest.mark.parametrize(
    ("request_", "failure", "says"),
    [
        (upscale(9, "another load"), "input", "load"),
        (upscale(9, "right", out_dtype="int7"), "input", "out_dtype"),
        (Upscale(9, 0, "right", (SLOT,), outs=(SLOT,)), "input", "shared"),
    ],
)
def test_a_batch_that_cannot_be_computed_fails_and_its_credit_comes_back(
    bench: Bench, request_: Upscale, failure: str, says: str
) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    if request_.load_id == "right":
        fields = {**request_.__dict__, "load_id": load_id}
        request_ = Upscale(**fields)
    failed, credit = bench.say(b"a", request_, session)
    assert isinstance(failed, Failed)
    assert failed.failure == failure
    assert says in failed.message
    assert credit == Credit(1, 48)


def test_the_same_id_and_attempt_twice_is_refused_and_another_attempt_is_not(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.say(b"a", upscale(3, load_id), session)
    assert kinds(bench.say(b"a", upscale(3, load_id), session)) == ["Failed", "Credit"]
    assert kinds(bench.say(b"a", upscale(3, load_id, attempt=1), session)) == ["Accepted"]
    assert kinds(bench.say(b"a", upscale(3, load_id, attempt=1), session)) == ["Failed", "Credit"]


def test_a_batch_of_a_host_that_left_is_computed_for_nobody(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.say(b"a", upscale(3, load_id), session)
    bench.say(b"a", upscale(4, load_id), session)
    bench.say(b"a", Bye(), session)
    assert bench.outcome(BatchEnded((np.zeros((8, 8, 3), np.uint8),))) == []
    assert not bench.running


def test_a_silent_host_is_dropped_and_its_credit_with_it(bench: Bench) -> None:
    session = bench.greet(b"a")
    bench.load(b"a", session)
    bench.tick(SILENCE_S - 0.1)
    bench.say(b"a", Ping(1), session)
    bench.tick(SILENCE_S - 0.1)
    assert isinstance(bench.say(b"a", Ping(2), session)[0], Pong)
    bench.tick(SILENCE_S + 0.1)
    (answer,) = bench.say(b"a", Ping(3), session)
    assert isinstance(answer, Reject)
    assert answer.reason == "session"


def test_a_worker_that_was_stopped_blames_nobody_for_the_silence(bench: Bench) -> None:
    session = bench.greet(b"a")
    bench.tick(60.0, unheard=60.0)
    assert isinstance(bench.say(b"a", Ping(1), session)[0], Pong)


def test_a_second_hello_of_one_peer_replaces_its_session(bench: Bench) -> None:
    old = bench.greet(b"a")
    new = bench.greet(b"a")
    assert old != new
    assert kinds(bench.say(b"a", Ping(1), old)) == ["Reject"]
    assert kinds(bench.say(b"a", Ping(1), new)) == ["Pong"]
    assert len(bench.service.sessions) == 1


def test_one_host_too_many_is_told_that_the_worker_is_busy(bench: Bench) -> None:
    for number in range(MAX_SESSIONS):
        bench.greet(bytes([number]))
    (answer,) = bench.say(b"one more", Hello(1, OLDEST, NEWEST))
    assert isinstance(answer, Reject)
    assert answer.reason == "busy"


def test_a_worker_leaves_when_it_was_alone_for_long_enough_and_says_so_to_late_hosts() -> None:
    bench = Bench(idle_s=10.0)
    bench.ready()
    session = bench.greet(b"a")
    bench.tick(4.0)
    bench.say(b"a", Bye(), session)
    bench.tick(9.0)
    assert not bench.left
    bench.tick(2.0)
    assert bench.left[0].reason == "idle"
    assert bench.retired == 1
    (answer,) = bench.say(b"b", Hello(1, OLDEST, NEWEST))
    assert isinstance(answer, Reject)
    assert answer.reason == "leaving"


def test_a_tied_worker_does_not_leave_for_being_alone_but_with_its_hosts_goodbye() -> None:
    bench = Bench(tied=True, idle_s=1.0)
    bench.ready()
    bench.tick(100.0)
    assert not bench.left
    bench.say(b"a", Bye(), bench.greet(b"a"))
    assert bench.left


def test_drain_answers_after_the_last_batch(bench: Bench) -> None:
    session, other = bench.greet(b"a"), bench.greet(b"b")
    load_id = bench.load(b"a", session)
    bench.say(b"a", upscale(3, load_id), session)
    assert bench.say(b"b", Drain(9), other) == []
    assert not bench.left
    said = bench.outcome(BatchEnded((np.zeros((8, 8, 3), np.uint8),)))
    assert (b"b", Drained(9)) in said
    assert [to for to, message in said if isinstance(message, Bye)] == [b"a"]
    assert bench.left == [Leave(0, "drained")]


def test_a_drain_with_a_time_limit_leaves_with_work_unfinished(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.say(b"a", upscale(3, load_id), session)
    bench.carry_out(bench.service.drain(bench.now, within=3.0))
    bench.tick(2.9)
    assert not bench.left
    bench.tick(0.2)
    assert len(bench.left) == 1


def test_a_backend_that_cannot_go_on_fails_its_batch_and_ends_the_worker(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.say(b"a", upscale(3, load_id), session)
    said = bench.outcome(BatchEnded(failure=Failure("fatal", False, "device lost", final=True)))
    assert kinds(said) == ["Failed", "Credit", "Bye"]
    assert bench.left == [Leave(1, "drained")]


def test_unload_is_answered_with_an_empty_load_id(bench: Bench) -> None:
    session = bench.greet(b"a")
    bench.load(b"a", session)
    bench.say(b"a", Unload(4), session)
    assert (b"a", Loaded(4, "")) in bench.outcome(UnloadEnded())
    assert bench.service.status.model == ""


def test_kinds_that_are_unknown_or_only_a_workers_are_ignored(bench: Bench) -> None:
    session = bench.greet(b"a")
    for message in (Ready("cpu"), Accepted(1, 0), Started(1, 0), Pong(1), Welcome(1, "s", NEWEST, "b"), Reject()):
        assert bench.say(b"a", message, session) == []
    assert bench.service.receive(b"a", Received(Unknown("Novelty"), session), 0.0) == []


PEERS = st.sampled_from([b"a", b"b", b"c"])
RARELY = st.integers(0, 5)


class Conversation(RuleBasedStateMachine):
    """Hosts that say anything in any order; the compute thread ends its task whenever it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.ready()
        self.sessions: dict[bytes, str] = {}
        self.load_ids: dict[bytes, str] = {}
        self.open: set[tuple[bytes, int]] = set()
        self.closed: set[tuple[bytes, int]] = set()
        self.number = 100

    def note(self, said: Sequence[tuple[bytes, Message]]) -> None:
        for to, message in said:
            if isinstance(message, Loaded) and message.load_id:
                self.load_ids[to] = message.load_id
            elif isinstance(message, Accepted):
                self.open.add((to, message.id))
            elif isinstance(message, (TileDone, Failed)):
                assert (to, message.id) not in self.closed, "answered twice"
                self.close(to, message.id)
            elif isinstance(message, Cancelled):
                self.close(to, message.id)

    def close(self, peer: bytes, number: int) -> None:
        self.open.discard((peer, number))
        self.closed.add((peer, number))

    def hear(self, peer: bytes, message: Message) -> None:
        received = Received(message, self.sessions.get(peer, ""), (b"",) * len(getattr(message, "bufs", ())))
        self.note(self.bench.carry_out(self.bench.service.receive(peer, received, self.bench.now)))

    def prepare(self, peer: bytes) -> None:
        """What a sensible host does first; otherwise nearly every batch is refused."""
        if self.bench.service.sessions.find(peer, self.sessions.get(peer, "")) is None:
            self.sessions[peer] = self.bench.greet(peer)
        resident = self.bench.service.work.resident
        if not resident.key and resident.coming is None:
            self.load(peer, "k1")
        while resident.coming is not None:
            self.finish()
        if resident.loaded is not None:
            self.load_ids[peer] = resident.loaded.load_id

    @rule(peer=PEERS, rarely=RARELY)
    def hello_again(self, peer: bytes, rarely: int) -> None:
        if rarely == 0:
            self.forget(peer)
            self.sessions[peer] = self.bench.greet(peer)

    @rule(peer=PEERS, rarely=RARELY)
    def bye(self, peer: bytes, rarely: int) -> None:
        if rarely == 0:
            self.hear(peer, Bye())
            self.forget(peer)

    def forget(self, peer: bytes) -> None:
        self.open = {batch for batch in self.open if batch[0] != peer}

    @rule(peer=PEERS, key=st.sampled_from(["k1", "k2"]))
    def load(self, peer: bytes, key: str) -> None:
        self.number += 1
        self.hear(peer, Load(self.number, key, "model"))

    @rule(peer=PEERS, rarely=RARELY)
    def unload(self, peer: bytes, rarely: int) -> None:
        if rarely == 0:
            self.number += 1
            self.hear(peer, Unload(self.number))

    @rule(peer=PEERS, tiles=st.integers(1, 3), sensible=st.booleans())
    def upscale(self, peer: bytes, tiles: int, *, sensible: bool) -> None:
        self.number += 1
        if sensible:
            self.prepare(peer)
        self.hear(peer, upscale(self.number, self.load_ids.get(peer, "none"), tiles=tiles))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        peer, number = data.draw(st.sampled_from(sorted(self.open)))
        self.hear(peer, Cancel(number))

    @precondition(lambda self: self.bench.running)
    @rule()
    def finish(self) -> None:
        task = self.bench.running[0]
        if isinstance(task, LoadTask):
            self.note(self.bench.outcome(LoadEnded(LoadResult(scale=2))))
        elif isinstance(task, BatchTask):
            results = (np.zeros((8, 8, 3), np.uint8),) * task.ticket.tiles
            # A batch of several tiles has several answers.
            said = self.bench.outcome(BatchEnded(results))
            done = [message for _, message in said if isinstance(message, TileDone)]
            assert len(done) in {0, task.ticket.tiles}
            first = [entry for entry in said if not isinstance(entry[1], TileDone) or entry[1].index == 0]
            self.note(first)
        else:
            self.note(self.bench.outcome(UnloadEnded()))

    @invariant()
    def what_is_open_is_queued_or_computed(self) -> None:
        """Nothing that was accepted is lost."""
        work = self.bench.service.work
        here = {(s.peer, t.request.id) for s in self.bench.service.sessions.all() for t in s.queue}
        if work.computing is not None:
            session = self.bench.service.sessions.named(work.computing.session)
            if session is not None:
                here.add((session.peer, work.computing.request.id))
        assert self.open == here

    @invariant()
    def credit_is_spent_for_what_is_open_alone(self) -> None:
        for session in self.bench.service.sessions.all():
            mine = [ticket.tiles for ticket in session.queue]
            computing = self.bench.service.work.computing
            if computing is not None and computing.session == session.name:
                mine.append(computing.tiles)
            assert session.spent_tiles == sum(mine)

    def teardown(self) -> None:
        while self.bench.running:
            self.finish()
        assert not self.open


Conversation.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_whatever_hosts_say_in_whatever_order_every_accepted_batch_is_answered_once = Conversation.TestCase
