"""A worker that serves a network: what one client can make the others wait for, believe, hold or read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_service import Bench, kinds, upscale

from upx_protocol.actions import BatchEnded, BatchTask, LoadEnded, LoadTask, Logged, Send
from upx_protocol.arrays import as_buffer, describe
from upx_protocol.codec import Received
from upx_protocol.messages import Bye, Cancel, Echo, Failed, Load, Loaded, Log, Message, Ping, Reject
from upx_protocol.options import WorkerOptions
from upx_protocol.patience import GAVE_UP, GONE_S, UNWANTED_S
from upx_protocol.service import MOST_UNSENT, Service
from upx_protocol.sessions import LOST_S
from upx_protocol.upscaler import LoadResult
from upx_protocol.work import LONGEST_DIGEST, LONGEST_MODEL

RESULT = np.zeros((8, 8, 3), np.uint8)
W, X = "w" * 64, "x" * 64


class ServingBench(Bench):
    """A bench whose hosts have keys, named by the first letter of their peers; nobody falls silent unless told to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allowed": "/allowed", "silence_s": 1e9, **options})
        self.unsent: list[Send] = []
        self.deaf: set[bytes] = set()

    def carry_out(self, actions: Any) -> list[tuple[bytes, Message]]:
        deaf = [each for each in actions if isinstance(each, Send) and each.arrays and each.peer in self.deaf]
        self.unsent += deaf
        return super().carry_out([each for each in actions if each not in deaf])

    def say(self, peer: bytes, message: Message, session: str = "") -> list[Message]:
        received = Received(message, session, (b"",) * len(getattr(message, "bufs", ())))
        said = self.carry_out(self.service.receive(peer, received, self.now, peer.decode()[0]))
        return [answer for to, answer in said if to == peer]

    def ask(self, peer: bytes, session: str, key: str = "key", **fields: Any) -> list[Message]:
        return self.say(peer, Load(2, key, fields.pop("model", "model"), **fields), session)

    def loads(self, weights: str = W, scale: int = 2) -> list[Message]:
        """The load that runs ends well."""
        said = self.outcome(LoadEnded(LoadResult(scale=scale), weights=weights))
        return [message for _, message in said if isinstance(message, (Loaded, Reject))]


@pytest.fixture
def bench() -> ServingBench:
    bench = ServingBench()
    bench.ready()
    return bench


def reasons(messages: list[Message]) -> list[str]:
    return [message.reason for message in messages if isinstance(message, Reject)]


# What says which model it is


def test_a_key_is_only_echoed_and_what_is_asked_for_counts(bench: ServingBench) -> None:
    one, two = bench.greet(b"a"), bench.greet(b"b")
    bench.ask(b"a", one, "same", model="nearest-x2")
    assert reasons(bench.ask(b"b", two, "same", model="nearest-x4")) == ["busy"]
    bench.loads()
    assert reasons(bench.ask(b"b", two, "same", model="nearest-x4")) == ["busy"]
    (loaded,) = bench.ask(b"b", two, "another", model="nearest-x2")
    assert isinstance(loaded, Loaded)
    assert (loaded.key, loaded.scale) == ("another", 2)
    assert not bench.running


@pytest.mark.parametrize("change", [{"precision": "fp16"}, {"threads": 3}, {"params": {"offload": True}}])
def test_whatever_a_load_says_of_the_model_makes_it_another(bench: ServingBench, change: dict[str, Any]) -> None:
    one, two = bench.greet(b"a"), bench.greet(b"b")
    bench.ask(b"a", one)
    bench.loads()
    assert reasons(bench.ask(b"b", two, **change)) == ["busy"]
    assert kinds(bench.ask(b"b", two, device="cuda:7", files={"weights": "/etc/passwd"})) == ["Loaded"]


def test_the_order_of_parameters_is_no_difference(bench: ServingBench) -> None:
    session = bench.greet(b"a")
    bench.ask(b"a", session, params={"a": 1, "b": 2})
    bench.loads()
    assert kinds(bench.ask(b"a", session, params={"b": 2, "a": 1})) == ["Loaded"]


@pytest.mark.parametrize(("first", "second"), [("", W), (W, ""), (W, W), ("", "")])
def test_who_does_not_know_the_weights_has_the_same_model_as_who_does(
    bench: ServingBench, first: str, second: str
) -> None:
    one, two, late = bench.greet(b"a"), bench.greet(b"b"), bench.greet(b"c")
    bench.ask(b"a", one, "k1", weights=first)
    assert bench.ask(b"b", two, "k2", weights=second) == []
    loaded = bench.loads()
    assert [getattr(message, "key", "") for message in loaded] == ["k1", "k2"]
    assert kinds(bench.ask(b"c", late, "k3", weights=second)) == ["Loaded"]
    assert not bench.running


def test_other_weights_are_another_model_before_and_after_they_are_known(bench: ServingBench) -> None:
    one, two, three = bench.greet(b"a"), bench.greet(b"b"), bench.greet(b"c")
    bench.ask(b"a", one, weights="")
    assert bench.ask(b"b", two, weights=X) == []
    assert [type(message) for message in bench.loads(weights=W)] == [Loaded, Reject]
    assert reasons(bench.ask(b"c", three, weights=X)) == ["busy"]


def test_a_lone_host_with_other_weights_has_them_looked_for(bench: ServingBench) -> None:
    session = bench.greet(b"a")
    bench.ask(b"a", session, weights="")
    bench.loads(weights=W)
    bench.ask(b"a", session, weights=X)
    assert isinstance(bench.running[0], LoadTask)


def test_a_host_that_comes_back_after_a_cut_link_goes_on_at_once(bench: ServingBench) -> None:
    bench.ask(b"a1", bench.greet(b"a1"), "k1", weights="")
    bench.loads(weights=W)
    again = bench.greet(b"a2")
    assert kinds(bench.ask(b"a2", again, "k2", weights=W)) == ["Loaded"]


def test_what_a_cut_link_left_keeps_the_same_client_from_another_model_for_seconds_and_others_until_its_end(
    bench: ServingBench,
) -> None:
    bench.ask(b"a1", bench.greet(b"a1"))
    bench.loads()
    again, other = bench.greet(b"a2"), bench.greet(b"b")
    assert reasons(bench.ask(b"a2", again, model="model-x4")) == ["busy"]
    bench.now += LOST_S + 0.1
    bench.say(b"a2", Ping(1), again)
    assert reasons(bench.ask(b"b", other, model="model-x4")) == ["busy"]
    assert reasons(bench.ask(b"a2", again, model="model-x4")) == ["busy"], "another client is there"
    bench.say(b"b", Bye(), other)
    assert bench.ask(b"a2", again, model="model-x4") == []
    assert isinstance(bench.running[0], LoadTask)


def test_on_one_machine_the_host_s_key_counts() -> None:
    bench = Bench()
    bench.ready()
    bench.load(b"a", bench.greet(b"a"), "key")
    other = bench.greet(b"b")
    assert kinds(bench.say(b"b", Load(3, "key", "whatever", weights=X), other)) == ["Loaded"]
    assert kinds(bench.say(b"b", Load(4, "other", "model"), other)) == ["Reject"]


def test_a_name_that_no_model_has_is_not_passed_on(bench: ServingBench) -> None:
    session = bench.greet(b"a")
    (failed,) = bench.ask(b"a", session, model="m" * (LONGEST_MODEL + 1))
    assert isinstance(failed, Failed)
    assert (failed.failure, len(failed.message) < 100) == ("input", True)
    assert not bench.running


@pytest.mark.parametrize("field", ["key", "weights"])
def test_what_is_no_digest_is_not_repeated_in_an_answer(bench: ServingBench, field: str) -> None:
    session = bench.greet(b"a")
    (failed,) = bench.ask(b"a", session, **{field: "d" * (LONGEST_DIGEST + 1)})
    assert isinstance(failed, Failed)
    assert failed.failure == "input"
    assert not bench.running
    near = Bench()
    near.ready()
    assert kinds(near.say(b"a", Load(2, **{"key": "k", "model": "m", field: "d" * 16_000}), near.greet(b"a"))) == [
        "Failed"
    ]
    assert bench.ask(b"a", session, **{field: "d" * LONGEST_DIGEST}) == []
    assert bench.running


# What never ends


def computing(bench: ServingBench, peer: bytes = b"a") -> str:
    session = bench.greet(peer)
    bench.ask(peer, session)
    (loaded,) = bench.loads()
    assert isinstance(loaded, Loaded)
    bench.say(peer, upscale(5, loaded.load_id), session)
    bench.tick(0.1)
    assert isinstance(bench.running[0], BatchTask)
    return session


def test_a_batch_of_a_host_that_left_ends_the_worker_after_a_while_and_the_others_hear_goodbye(
    bench: ServingBench,
) -> None:
    session, _other = computing(bench), bench.greet(b"b")
    bench.tick(600.0)
    assert not bench.left
    bench.say(b"a", Bye(), session)
    bench.tick(0.1)
    bench.tick(GONE_S - 0.5)
    assert not bench.left
    said = bench.tick(1.0)
    assert [(leave.status) for leave in bench.left] == [GAVE_UP]
    assert [to for to, message in said if isinstance(message, Bye)] == [b"b"]


def test_whose_load_waits_behind_such_a_batch_is_told_that_it_gets_on(bench: ServingBench) -> None:
    session = computing(bench)
    bench.say(b"a", Bye(), session)
    other = bench.greet(b"b")
    bench.ask(b"b", other, model="another")
    bench.tick(0.1)
    said = bench.tick(GONE_S + 0.5)
    assert [message.kind() for to, message in said if to == b"b"] == ["Progress", "Bye"]


def test_a_batch_that_was_cancelled_has_longer_and_its_end_is_in_time(bench: ServingBench) -> None:
    session = computing(bench)
    bench.say(b"a", Cancel(5), session)
    bench.tick(0.1)
    bench.tick(UNWANTED_S - 1.0)
    bench.outcome(BatchEnded((RESULT,)))
    bench.tick(1_000.0)
    assert not bench.left
    assert bench.service.work.resident.loaded is not None
    bench.say(b"a", upscale(6, bench.service.work.resident.loaded.load_id), session)
    bench.say(b"a", Cancel(6), session)
    bench.tick(0.1)
    bench.tick(UNWANTED_S + 1.0)
    assert bench.left[0].status == GAVE_UP


def test_no_batch_takes_longer_than_the_worker_was_told() -> None:
    bench = ServingBench(batch_s=50.0)
    bench.ready()
    computing(bench)
    bench.tick(49.0)
    assert not bench.left
    bench.tick(2.0)
    assert bench.left[0].status == GAVE_UP


def test_each_batch_has_that_time_for_itself() -> None:
    bench = ServingBench(batch_s=50.0)
    bench.ready()
    session = computing(bench)
    for number in range(10, 15):
        bench.tick(40.0)
        assert bench.service.work.resident.loaded is not None
        bench.say(b"a", upscale(number, bench.service.work.resident.loaded.load_id), session)
        bench.outcome(BatchEnded((RESULT,)))
        bench.tick(0.1)
    assert not bench.left


def test_a_load_that_nobody_waits_for_any_more_does_not_last_for_ever(bench: ServingBench) -> None:
    session = bench.greet(b"a")
    bench.ask(b"a", session, params={"load_delay": 1e6})
    bench.tick(10_000.0)
    assert not bench.left
    bench.say(b"a", Bye(), session)
    bench.tick(0.1)
    bench.tick(UNWANTED_S + 1.0)
    assert bench.left[0].status == GAVE_UP


def test_a_worker_of_one_machine_has_its_hosts_to_end_it() -> None:
    bench = Bench(batch_s=50.0)
    bench.ready()
    session = bench.greet(b"a")
    bench.say(b"a", upscale(5, bench.load(b"a", session)), session)
    bench.tick(0.1)
    bench.say(b"a", Bye(), session)
    bench.tick(10_000.0)
    assert bench.left == []


# What may be asked for


def test_a_parameter_that_is_not_on_the_list_fails_its_batch_before_anything_is_computed() -> None:
    bench = ServingBench(parameters={"steps": {"kind": "int", "default": 1}})
    bench.ready()
    session = bench.greet(b"a")
    bench.ask(b"a", session)
    (loaded,) = bench.loads()
    assert isinstance(loaded, Loaded)
    said = bench.say(b"a", upscale(5, loaded.load_id, params={"stepz": 1}), session)
    assert kinds(said) == ["Failed", "Credit"]
    assert not bench.running
    assert kinds(bench.say(b"a", upscale(6, loaded.load_id, params={"steps": 2}), session)) == ["Accepted", "Started"]


# What is held for those who do not read


def test_who_does_not_read_its_results_gets_no_more_of_them_and_nobody_else_waits(bench: ServingBench) -> None:
    session, other = bench.greet(b"a"), bench.greet(b"b")
    bench.ask(b"a", session)
    (loaded,) = bench.loads()
    assert isinstance(loaded, Loaded)
    bench.deaf.add(b"a")
    for number in range(3):
        bench.say(b"a", upscale(number, loaded.load_id), session)
    # As large as it has to be, without the memory.
    huge = np.broadcast_to(RESULT[:1], (MOST_UNSENT // RESULT[:1].nbytes + 1, *RESULT[:1].shape))
    bench.outcome(BatchEnded((huge,)))
    # The one that was begun before its answers were sent.
    bench.outcome(BatchEnded((RESULT,)))
    assert not bench.running
    assert bench.service.work.queued == 1
    bench.tick(0.1)
    assert not bench.running
    bench.say(b"b", upscale(9, loaded.load_id), other)
    assert bench.running[0].ticket.session == other
    bench.outcome(BatchEnded((RESULT,)))
    # It reads again.
    for send in bench.unsent:
        bench.service.sent(send)
    bench.tick(0.1)
    assert bench.running[0].ticket.request.id == 2


def echo(bench: ServingBench, peer: bytes, session: str, side: int = 8) -> list[Message]:
    tile = np.zeros((side, side, 3), np.uint8)
    message = Echo(7, (describe(tile),))
    actions = bench.service.receive(peer, Received(message, session, (as_buffer(tile),)), bench.now, peer.decode()[0])
    return [message for _, message in bench.carry_out(actions)]


def test_an_echo_has_to_be_within_the_credit_even_when_it_is_alone() -> None:
    bench = ServingBench(credit_bytes=1_000)
    bench.ready()
    session = bench.greet(b"a")
    assert reasons(echo(bench, b"a", session, side=64)) == ["credit"]
    assert kinds(echo(bench, b"a", session)) == ["Echoed", "Credit"]


def test_no_echo_is_made_for_who_leaves_too_much_unread_in_whatever_session(bench: ServingBench) -> None:
    first, sibling, other = bench.greet(b"a1"), bench.greet(b"a2"), bench.greet(b"b")
    unread = bench.service.sessions.named(first)
    assert unread is not None
    unread.unsent = MOST_UNSENT + 1
    assert reasons(echo(bench, b"a2", sibling)) == ["credit"]
    assert kinds(echo(bench, b"b", other)) == ["Echoed", "Credit"]
    unread.unsent = MOST_UNSENT
    assert kinds(echo(bench, b"a2", sibling)) == ["Echoed", "Credit"]


# What is told


def test_what_is_logged_is_told_to_nobody_of_another_machine(bench: ServingBench) -> None:
    bench.greet(b"a")
    record = Logged("WARNING", "upx.worker", "loading a file of the owner: no", 0.0)
    assert bench.outcome(record) == []
    near = Bench()
    near.ready()
    near.greet(b"a")
    assert near.outcome(record) == [(b"a", Log("WARNING", "upx.worker", "loading a file of the owner: no", 0.0))]


def test_a_worker_serves_a_network_when_it_was_given_a_list_or_a_name() -> None:
    near = WorkerOptions("toy", "toy", "ipc:///x")
    far = WorkerOptions("toy", "toy", "tcp://x", box="attic")
    assert (near.serves, far.serves) == (False, True)
    assert Service(far, now=0.0).work.resident.own_keys
