"""What a worker says of itself: counters that only grow, time that it computed, and no trace of who merely looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from test_service import SLOT, Bench, upscale

from upx_protocol.actions import BatchEnded, Failure, Imported, LoadEnded, TilePlaced
from upx_protocol.messages import Hello, Load, Loaded, Ping, Pong, Reject, Upscale, Welcome
from upx_protocol.options import WorkerOptions
from upx_protocol.upscaler import DeviceInfo, LoadResult
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import RunningWorker
    from upx_protocol.messages import Message
    from upx_protocol.testing import FakeHost

RESULT = np.zeros((8, 8, 3), np.uint8)
TILE = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.outcome(Imported(DeviceInfo(device="cuda:0", device_name="a GPU")))
    return bench


def look(bench: Bench, peer: bytes = b"passer-by", session: str = "") -> Pong:
    """The answer to somebody who only looks, or to a host."""
    (answer,) = bench.say(peer, Ping(1), session)
    assert isinstance(answer, Pong)
    return answer


def test_a_worker_tells_its_age_and_its_device_before_it_holds_a_model(bench: Bench) -> None:
    bench.tick(3.0)
    pong = look(bench)
    assert (pong.age_s, pong.busy_s, pong.tiles_done, pong.pixels_done) == (3.0, 0.0, 0, 0)
    assert (pong.model, pong.device, pong.device_name) == ("", "cuda:0", "a GPU")


def test_one_that_still_imports_its_backend_answers_without_a_device() -> None:
    assert look(Bench()).device == ""


def test_the_model_and_where_it_runs_are_those_of_its_load(bench: Bench) -> None:
    session = bench.greet(b"a")
    bench.say(b"a", Load(2, "key", "span-x4"), session)
    bench.outcome(LoadEnded(LoadResult(scale=2, device="cuda:1", device_name="another")))
    pong = look(bench)
    assert (pong.model, pong.device, pong.device_name) == ("span-x4", "cuda:1", "another")


def test_tiles_and_their_input_pixels_are_counted_when_they_are_done(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.say(b"a", upscale(3, load_id, tiles=3), session)
    assert (look(bench).queued, look(bench).tiles_done) == (3, 0)
    bench.outcome(BatchEnded((RESULT,) * 3))
    pong = look(bench)
    assert (pong.queued, pong.tiles_done, pong.pixels_done) == (0, 3, 3 * 16)


def test_a_tile_of_the_ring_is_counted_as_soon_as_it_is_placed(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.service.sessions.of_peer(b"a").ring = Everything()  # type: ignore[union-attr, assignment]
    out = SLOT.in_ring("uint8", (8, 8, 3), 192, slot=2, gen=2)
    bench.say(b"a", Upscale(3, 0, load_id, (SLOT,), outs=(out,)), session)
    bench.carry_out(bench.service.outcome(TilePlaced(0, 0.1), bench.now))
    assert (look(bench).tiles_done, look(bench).pixels_done) == (1, 16)
    bench.outcome(BatchEnded())
    assert (look(bench).tiles_done, look(bench).pixels_done) == (1, 16)


class Everything:
    """A ring that holds whatever is asked for."""

    def holds(self, _buffer: object) -> bool:
        return True

    stamped = holds


def test_time_counts_as_busy_from_a_batchs_start_to_its_end_whatever_becomes_of_it(bench: Bench) -> None:
    session = bench.greet(b"a")
    load_id = bench.load(b"a", session)
    bench.tick(1.0)
    bench.say(b"a", upscale(3, load_id), session)
    bench.tick(2.0)
    assert look(bench).busy_s == 2.0, "it is at work still"
    bench.tick(1.0)
    bench.outcome(BatchEnded(failure=Failure("fatal", False, "broke")))
    bench.tick(5.0)
    pong = look(bench)
    assert (pong.busy_s, pong.age_s, pong.tiles_done) == (3.0, 9.0, 0)


def test_loading_is_no_computing(bench: Bench) -> None:
    session = bench.greet(b"a")
    bench.say(b"a", Load(2, "key", "model"), session)
    bench.tick(4.0)
    bench.outcome(LoadEnded(LoadResult(scale=2)))
    assert look(bench).busy_s == 0.0


def test_who_only_looks_is_no_host_and_is_in_nobodys_way(bench: Bench) -> None:
    assert look(bench).hosts == 0
    (welcome, _) = bench.say(b"a", Hello(1, OLDEST, NEWEST))
    assert isinstance(welcome, Welcome)
    assert welcome.credit_tiles == WorkerOptions("toy", "toy", "").credit_tiles, "all of it: nobody else is there"
    a = welcome.session
    bench.load(b"a", a, "one")
    assert look(bench).hosts == 1
    bench.say(b"a", Load(3, "two", "model"), a)
    said = bench.outcome(LoadEnded(LoadResult(scale=2)))
    assert [message.key for _, message in said if isinstance(message, Loaded)] == ["two"], "no other host: not busy"


def test_looking_keeps_no_idle_worker_alive() -> None:
    bench = Bench(idle_s=10.0)
    bench.ready()
    for _ in range(4):
        bench.tick(2.0)
        look(bench)
    assert not bench.left
    bench.tick(2.5)
    assert [leave.reason for leave in bench.left] == ["idle"]


def test_looking_is_no_word_of_a_host_that_has_a_session_and_is_silent(bench: Bench) -> None:
    session = bench.greet(b"a")
    bench.tick(4.0)
    look(bench, b"a")
    bench.tick(2.0)
    (answer,) = bench.say(b"a", Ping(2), session)
    assert isinstance(answer, Reject)


def test_nothing_else_is_answered_without_a_session(bench: Bench) -> None:
    messages: tuple[Message, ...] = (Load(2, "key", "model"), upscale(3, "load"))
    for message in messages:
        (answer,) = bench.say(b"passer-by", message)
        assert isinstance(answer, Reject)
        assert answer.reason == "session"
    assert isinstance(bench.say(b"a", Ping(2), "no such session")[0], Reject)


def test_a_full_worker_can_still_be_looked_at(bench: Bench) -> None:
    while not bench.service.sessions.full:
        bench.greet(len(bench.service.sessions).to_bytes(2, "big"))
    (refused,) = bench.say(b"one more", Hello(1, OLDEST, NEWEST))
    assert isinstance(refused, Reject)
    assert look(bench, b"one more").hosts == len(bench.service.sessions)


def test_a_real_worker_counts_what_it_computes(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    host, passer_by = connect(worker), connect(worker, hello=False)
    host.load("any")
    began = time.monotonic()
    for _ in range(3):
        host.upscale([TILE, TILE], sleep=0.05)
    took = time.monotonic() - began
    passer_by.send(Ping(9))
    pong = passer_by.expect(Pong)
    assert (pong.nonce, pong.hosts, pong.queued) == (9, 1, 0)
    assert (pong.tiles_done, pong.pixels_done) == (6, 6 * 16)
    assert 0.15 <= pong.busy_s <= took
    assert pong.busy_s < pong.age_s
    assert (pong.model, pong.device) == ("any", "cpu")
