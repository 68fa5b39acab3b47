"""What a host sends to a box that lacks files: what the box may have, as fast as it takes it, and no more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_kit import enlarged, noise

from upx.errors import LicenceError, WeightsError
from upx.workers.conversation import Conversation
from upx.workers.events import LoadProgress
from upx.workers.far import FarLaunch, FarSite, Seat
from upx.workers.plan import LoadPlan, Timeouts
from upx.workers.sending import AGAIN_S, AT_A_TIME, MOST_WINDOW, TELL_S, TRIES, Flow, Sending
from upx_protocol.codec import Received
from upx_protocol.files import CHUNK, FILES, WINDOW
from upx_protocol.messages import (
    Chunk,
    Failed,
    Log,
    Message,
    Offer,
    Progress,
    Taken,
    Want,
    Wanted,
    Welcome,
)
from upx_protocol.version import NEWEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SHA, LOAD = "ab" * 32, 7
DATA = np.random.default_rng(3).integers(0, 256, 5 * CHUNK + 99, np.uint8).tobytes()
WANTED = Wanted("weights", "w.bin", SHA, len(DATA))


# ---------------------------------------------------------------------------------------------- the window


@given(
    st.integers(1, 40 * CHUNK), st.integers(0, 40 * CHUNK), st.integers(1, WINDOW), st.randoms(use_true_random=False)
)
def test_every_byte_goes_out_once_in_order_and_never_beyond_the_window(size, start, window, random) -> None:
    flow, out = Flow(size), min(start, size)
    assert flow.answered(out, window)
    while flow.taken < size:
        for offset, nbytes in flow.due():
            assert offset == out
            assert nbytes == min(CHUNK, size - offset)
            out += nbytes
            flow.sent += nbytes
            assert out - flow.taken <= window
        if out == flow.taken:
            assert window < CHUNK, "only a window that holds no chunk stops it"
            return
        assert flow.answered(random.randint(flow.taken + 1, out), window)
    assert out == size


@pytest.mark.parametrize("offset", [-1, 4 * CHUNK + 1, 2**62])
def test_an_answer_to_an_offer_that_cannot_be_is_passed_over(offset) -> None:
    assert not Flow(4 * CHUNK).answered(offset, WINDOW)


def test_bytes_that_were_never_sent_cannot_have_been_taken() -> None:
    flow = Flow(4 * CHUNK)
    flow.answered(0, 2 * CHUNK)
    flow.sent = 2 * CHUNK
    for offset in (0, 2 * CHUNK + 1, 4 * CHUNK):
        assert not flow.answered(offset, WINDOW)
    assert flow.answered(CHUNK, 1 << 60)
    assert flow.window == MOST_WINDOW


def test_a_window_of_less_than_nothing_is_none() -> None:
    flow = Flow(4 * CHUNK)
    assert flow.answered(0, -1)
    assert flow.window == 0


# ---------------------------------------------------------------------------------------------- sending


class Box:
    """A sending whose box is the test; ``room``: how many messages the connection takes."""

    def __init__(self, supply) -> None:
        self.said: list[Message] = []
        self.bytes = self.data = b""
        self.events: list[Any] = []
        self.loads = self.advances = 0
        self.room = 10_000
        self._numbers = 100
        self.sending = Sending(
            "attic:7600", supply, say=self.say, number=self.number, load=self.load, advanced=self.advanced,
            report=self.events.append,
        )  # fmt: skip
        self.sending.expect(LOAD)

    def say(self, message: Message, arrays: Sequence[np.ndarray] = ()) -> bool:
        if len(self.said) >= self.room:
            return False
        self.said.append(message)
        if isinstance(message, Chunk):
            self.bytes += arrays[0].tobytes()
        return True

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def load(self) -> None:
        self.loads += 1
        self.sending.expect(LOAD + self.loads)

    def advanced(self, _now: float) -> None:
        self.advances += 1

    def want(self, *files: Wanted, load: int = LOAD) -> None:
        self.sending.want(Want(load, files or (WANTED,), "it is nowhere"), 0.0)
        until = time.monotonic() + 5.0
        while not self.said and self.sending.failure is None and time.monotonic() < until:
            self.sending.turn(0.0)
            time.sleep(0.001)

    def offer(self) -> Offer:
        found = self.said[-1]
        assert isinstance(found, Offer)
        return found

    def take(self, offset: int, window: int = WINDOW, now: float = 0.0) -> None:
        number = [each.id for each in self.said if isinstance(each, Offer)][-1]
        self.sending.taken(Taken(number, offset, window), now)


@pytest.fixture
def supply(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(DATA)
    return lambda wanted: {each.sha256: path for each in wanted}


@pytest.fixture
def box(supply) -> Box:
    made = Box(supply)
    yield made
    made.sending.reset()


def test_a_file_is_offered_sent_and_followed_by_the_load(box) -> None:
    assert box.sending.features == (FILES,)
    box.want()
    assert (box.offer().sha256, box.offer().size) == (SHA, len(DATA))
    box.take(0)
    assert box.bytes == DATA
    for offset in (CHUNK, len(DATA)):
        assert box.loads == 0
        box.take(offset)
    assert box.loads == 1
    assert box.events[-1] == LoadProgress("attic:7600", "sending w.bin", len(DATA), len(DATA))


def test_it_goes_on_where_the_box_says(box) -> None:
    box.want()
    box.take(CHUNK + 5)
    assert box.bytes == DATA[CHUNK + 5 :]


@pytest.fixture
def large(tmp_path) -> Box:
    """A box that wants a file of more than a window."""
    data = np.random.default_rng(4).integers(0, 256, 50 * CHUNK + 7, np.uint8).tobytes()
    path = tmp_path / "large.bin"
    path.write_bytes(data)
    box = Box(lambda wanted: {each.sha256: path for each in wanted})
    box.data = data
    box.want(Wanted("weights", "large.bin", SHA, len(data)))
    return box


def test_a_turn_sends_a_few_chunks_whatever_the_box_says(large) -> None:
    large.take(0, now=1.0)
    assert len(large.bytes) == AT_A_TIME * CHUNK
    large.take(CHUNK, now=1.0)
    large.sending.turn(1.0)
    assert len(large.bytes) == AT_A_TIME * CHUNK
    large.sending.turn(1.2)
    assert len(large.bytes) == 2 * AT_A_TIME * CHUNK


def test_a_box_that_answers_each_chunk_has_its_window_full_after_a_few(large) -> None:
    size, full = len(large.data), WINDOW // CHUNK // AT_A_TIME
    for answer in range(51):
        large.take(answer * CHUNK, now=1.0 + answer / 100)
        assert len(large.bytes) <= min(size, answer * CHUNK + WINDOW)
        assert answer < full or len(large.bytes) >= min(size, answer * CHUNK + WINDOW - CHUNK)
    large.take(size, now=2.0)
    assert large.bytes == large.data
    assert large.loads == 1


def test_a_box_that_answers_seldom_has_all_of_its_window_as_time_passes(large) -> None:
    large.take(0, now=1.0)
    for turn in range(1, 10):
        large.sending.turn(1.0 + turn / 5)
    assert len(large.bytes) == WINDOW
    large.take(WINDOW, now=4.0)
    for turn in range(1, 10):
        large.sending.turn(4.0 + turn / 5)
    assert large.bytes == large.data


def test_a_connection_that_takes_nothing_more_is_tried_again_and_loses_no_chunk(box) -> None:
    box.want()
    box.room = 3
    box.take(0)
    assert len(box.bytes) == 2 * CHUNK
    box.room = 10_000
    box.sending.turn(0.1)
    assert box.bytes == DATA


def test_while_somebody_else_sends_it_is_offered_again_and_again(box) -> None:
    box.want()
    for second in range(1, 20):
        box.take(second * 1000, window=0, now=float(second))
        assert box.events[-1].stage == "another host sends w.bin" or second > 1
        offers = len(box.said)
        box.sending.turn(second + AGAIN_S - 0.01)
        assert len(box.said) == offers
        box.sending.turn(second + AGAIN_S + 0.01)
        assert len(box.said) == offers + 1
    box.take(len(DATA))
    assert (box.loads, box.bytes) == (1, b"")
    assert box.advances >= 20, "every byte that another sends is progress"


def test_a_box_that_gets_on_with_nothing_is_no_progress(box) -> None:
    box.want()
    box.take(0, window=0)
    before = box.advances
    for second in range(1, 5):
        box.sending.turn(10.0 * second)
        box.take(0, window=0, now=10.0 * second)
    assert box.advances == before


def test_what_failed_for_now_is_tried_again_but_not_for_ever(box) -> None:
    box.want()
    for again in range(1, TRIES + 1):
        box.take(0)
        box.bytes = b""
        box.sending.failed(Failed(box.said[-1].id, failure="transient", retryable=True, message="wrong"), float(again))
        box.sending.turn(again + 2 * AGAIN_S)
    assert box.sending.failure is not None
    assert "w.bin was not taken: wrong" in box.sending.failure.message


def test_what_failed_for_good_ends_the_load_in_the_words_of_both(box) -> None:
    box.want()
    box.sending.failed(Failed(box.offer().id, failure="input", message="no space left"), 0.0)
    assert box.sending.failure == Failed(
        LOAD, failure="input", message="w.bin was not taken: no space left; it lacks them: it is nowhere"
    )
    assert box.loads == 0


def test_a_failure_of_something_else_is_no_failure_of_the_file(box) -> None:
    box.want()
    box.sending.failed(Failed(LOAD, failure="input"), 0.0)
    box.sending.failed(Failed(0, failure="fatal"), 0.0)
    assert box.sending.failure is None


def test_several_files_go_one_after_the_other(supply) -> None:
    box = Box(supply)
    box.want(WANTED, Wanted("config", "c.json", "cd" * 32, 0))
    box.take(len(DATA))
    assert (box.offer().sha256, box.loads) == ("cd" * 32, 0)
    box.take(len(DATA))
    assert box.loads == 1


def test_a_box_that_wants_what_it_was_sent_is_not_sent_it_for_ever(box) -> None:
    box.want()
    box.take(len(DATA))
    box.sending.want(Want(LOAD + 1, (WANTED,), "it is nowhere"), 0.0)
    assert box.sending.failure is not None
    assert "w.bin was sent" in box.sending.failure.message


def test_a_want_that_answers_no_load_of_ours_is_passed_over(box) -> None:
    box.sending.want(Want(LOAD + 1, (WANTED,)), 0.0)
    time.sleep(0.05)
    box.sending.turn(0.0)
    assert (box.said, box.sending.failure) == ([], None)


@pytest.mark.parametrize("files", [(), (WANTED,)], ids=["nothing", "unasked"])
def test_a_box_that_wants_nothing_or_of_a_host_that_sends_nothing_has_failed(files, supply) -> None:
    box = Box(supply if not files else None)
    assert box.sending.features == ((FILES,) if not files else ())
    box.sending.want(Want(LOAD, files, "it is nowhere"), 0.0)
    assert box.sending.failure is not None
    assert box.said == []


@pytest.mark.parametrize(
    "error", [WeightsError("not here", hint="pull it"), LicenceError("ask", hint="pull it"), OSError("disk")]
)
def test_what_cannot_be_sent_is_said_and_nothing_is(error) -> None:
    def supply(_: Sequence[Wanted]) -> Mapping[str, Path]:
        raise error

    box = Box(supply)
    box.want()
    assert box.sending.failure is not None
    assert str(error) in box.sending.failure.message
    assert box.said == []


def test_a_file_that_is_cut_short_while_it_is_sent_ends_the_load(box, tmp_path) -> None:
    box.want()
    (tmp_path / "w.bin").write_bytes(b"short")
    box.take(0)
    assert box.sending.failure is not None
    assert "cut short" in box.sending.failure.message


def test_another_session_begins_anew_and_hears_nothing_of_the_one_before(box) -> None:
    box.want()
    number = box.offer().id
    box.sending.reset()
    box.sending.taken(Taken(number, 0, WINDOW), 0.0)
    box.sending.failed(Failed(number, failure="input"), 0.0)
    assert (box.bytes, box.sending.failure) == (b"", None)
    box.sending.expect(LOAD)
    box.said.clear()
    box.want()
    box.take(CHUNK)
    assert box.bytes == DATA[CHUNK:]


# ---------------------------------------------------------------------------------------------- what a box tells


class Line:
    """A channel to nobody."""

    pipe = None

    def send(self, *_: Any, **__: Any) -> bool:
        return True


def loading(place: str = "attic") -> tuple[Conversation, list[Any]]:
    """A conversation whose worker loads, and what it reports."""
    events: list[Any] = []
    plan = LoadPlan(backend="nearest", model="m", place=place, share=False)
    talk = Conversation(
        0, "attic:7600", plan, Line(), timeouts=Timeouts(), report=events.append, leaving=lambda: False
    )  # fmt: skip
    talk.greet(0.0)
    talk.hear(Received(Welcome(1, "s", NEWEST, "nearest", credit_tiles=4, credit_bytes=1 << 30), ""), 0.0)
    assert talk.phase == "loading"
    return talk, events


def test_a_box_that_logs_fills_no_queue() -> None:
    for place, lines in (("attic", 0), ("", 1)):
        talk, events = loading(place)
        talk.hear(Received(Log("ERROR", "its own", "look at me"), "s"), 1.0)
        assert len(events) == lines


def test_how_far_a_box_is_with_a_load_is_told_no_more_often_than_a_person_can_read() -> None:
    talk, events = loading()
    for number in range(1, 1001):
        talk.hear(Received(Progress(2, f"stage {number}", number, 1000), "s"), 1.0 + number / 1000)
    assert 1 / TELL_S - 1 <= len(events) <= 1 / TELL_S + 1
    assert talk.deadline == 2.0 + Timeouts().load, "each of them is progress"
    talk.look(2.0 + TELL_S)
    assert events[-1] == LoadProgress("attic:7600", "stage 1000", 1000, 1000), "the last of them is told"
    before = len(events)
    talk.look(3.0)
    assert len(events) == before


def test_how_far_a_worker_of_this_machine_is_with_a_load_is_told_each_time() -> None:
    talk, events = loading("")
    for number in range(20):
        talk.hear(Received(Progress(2, "weights", number, 20), "s"), 1.0)
    assert len(events) == 20


# ---------------------------------------------------------------------------------------------- beside it


def test_a_box_that_gets_on_with_a_load_is_tried_for_as_long_as_one_that_was_just_asked() -> None:
    timeouts = Timeouts(reach=15.0)
    launch = FarLaunch(Seat(), FarSite("attic", "tcp://x:1", "k", None), timeouts)
    launch.poll(100.0)
    assert not launch.patient(116.0)
    launch.heard(3600.0)
    assert launch.patient(3610.0)
    assert not launch.patient(3616.0)


def test_what_may_be_sent_is_no_part_of_what_is_loaded(supply) -> None:
    plan = LoadPlan(backend="b", model="m", supply=supply)
    assert plan == LoadPlan(backend="b", model="m")
    assert plan.load_key == LoadPlan(backend="b", model="m").load_key
    assert plan.at("attic", precision="auto").supply is supply


def test_a_load_that_takes_longer_than_a_silent_host_is_remembered_ends_well(open_pool, plan) -> None:
    eyes = open_pool(plan, params={"load_delay": 6.0})
    tile = noise(1, 8)
    assert np.array_equal(eyes.up(tile)[0], enlarged(tile))
