"""A worker that speaks another version, misbehaves, or sends what is no message: the host stays up and says so."""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import zmq
from worker_kit import QUICK, enlarged, noise, stand_in

from upx import errors
from upx.workers import endpoints, events
from upx_protocol.codec import decode, encode
from upx_protocol.messages import (
    Bye,
    Credit,
    Drained,
    Hello,
    Load,
    Loaded,
    Ping,
    Pong,
    Ready,
    Reject,
    Started,
    TileDone,
    Upscale,
    Welcome,
)
from upx_protocol.testing import Conduct, FakeWorker, mangled, truncate_tiles, worker_messages
from upx_protocol.version import NEWEST, Version

COUNT = int(os.environ.get("UPX_MANGLED", "100000"))
SEED = int(os.environ.get("UPX_SEED", "20261121"))
TILE = noise(1, 8)


@pytest.fixture
def detached(plan):
    return replace(plan, keep_alive=60.0)


@pytest.fixture
def fake(settings, detached, open_pool):
    """``fake(conduct)``: a pool whose first worker is one that misbehaves so."""
    with_exit = []

    def make(conduct: Conduct, **options):
        worker = FakeWorker(endpoints.new_endpoint(settings, "ipc"), conduct)
        entry = stand_in(settings, detached, worker.endpoint)
        with_exit.extend([worker, entry])
        worker.__enter__()
        entry.__enter__()
        return open_pool(detached, **options)

    yield make
    for item in reversed(with_exit):
        item.__exit__(None, None, None)


def test_a_worker_of_another_version_is_refused_with_both_ranges_named(fake) -> None:
    eyes = fake(Conduct(versions=(Version(7, 1), Version(8, 2))))
    with pytest.raises(errors.ProtocolVersionError, match=r"7\.1 to 8\.2.*1\.0 to 1\.1") as caught:
        eyes.pool.ready(30)
    assert caught.value.exit_code == 7
    assert "upx stop" in caught.value.hint


@pytest.mark.parametrize("reason", ["leaving", "identity", "busy"])
def test_a_worker_that_refuses_us_is_passed_over_and_another_started(fake, reason) -> None:
    eyes = fake(Conduct(refuse=reason))
    assert np.array_equal(eyes.up(TILE)[0], enlarged(TILE))
    assert len(eyes.of(events.WorkerStarting)) == 1


def test_a_worker_that_says_nothing_has_two_seconds(fake) -> None:
    eyes = fake(Conduct(stall_after=0))
    began = time.monotonic()
    assert np.array_equal(eyes.up(TILE)[0], enlarged(TILE))
    assert QUICK.hello < time.monotonic() - began < QUICK.hello + 5


def test_a_worker_that_behaves_is_used(fake) -> None:
    eyes = fake(Conduct(reverse=True))
    tiles = [noise(seed, 8) for seed in range(3)]
    for tile, result in zip(tiles, eyes.up(*tiles), strict=True):
        assert np.array_equal(result, enlarged(tile))
    assert eyes.of(events.WorkerStarting) == []


def test_tiles_whose_session_was_forgotten_are_sent_again_in_the_end_to_another_worker(fake) -> None:
    eyes = fake(Conduct(forget_after=1))
    assert np.array_equal(eyes.up(TILE)[0], enlarged(TILE))
    assert eyes.of(events.WorkerStarting) == []
    futures = [eyes.submit(noise(seed, 8))[0] for seed in range(3)]
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(seed, 8)))


@pytest.mark.parametrize(
    "conduct",
    [Conduct(tamper=truncate_tiles), Conduct(stall_after=1), Conduct(close_after=1)],
    ids=["cut", "stall", "close"],
)
def test_answers_that_are_cut_missing_or_never_come_are_had_from_another_worker(fake, conduct) -> None:
    eyes = fake(conduct)
    futures = [eyes.submit(noise(seed, 8))[0] for seed in range(3)]
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(30).array, enlarged(noise(seed, 8)))
    assert len(eyes.of(events.WorkerStarting)) == 1


def test_a_result_of_another_size_than_was_asked_for_fails_the_tile(fake) -> None:
    def shrink(message, parts):
        if not isinstance(message, TileDone):
            return parts
        small = np.zeros((2, 2, 3), np.uint8)
        return encode(message, session=decode(parts).session, arrays=(small,))

    eyes = fake(Conduct(tamper=shrink))
    error = eyes.submit(TILE)[0].exception(30)
    assert isinstance(error, errors.ModelError)
    assert "(2, 2, 3)" in str(error)


class Flood(threading.Thread):
    """A worker that answers well, but sends ``COUNT`` mangled messages before its first answer."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(name="flood")
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.bind(endpoint)
        self.stop = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self.stop.is_set():
            if self.router.poll(20):
                peer, *parts = self.router.recv_multipart()
                received = decode(parts)
                self.answer(peer, received.message)
        self.router.close()
        self.context.term()

    def say(self, peer: bytes, message, arrays=()) -> None:
        self.put([peer, *encode(message, session="" if isinstance(message, Welcome) else "flood", arrays=arrays)])

    def put(self, parts) -> None:
        while not self.stop.is_set():
            try:
                self.router.send_multipart(parts, zmq.NOBLOCK)
            except zmq.Again:
                time.sleep(0.0005)
            else:
                return

    def answer(self, peer: bytes, message) -> None:
        if isinstance(message, Hello):
            self.say(peer, Welcome(message.id, "flood", NEWEST, "nearest", credit_tiles=4, credit_bytes=1 << 30))
            self.say(peer, Ready("cpu"))
        elif isinstance(message, Load):
            self.say(peer, Loaded(message.id, "loaded", message.key, scale=4))
        elif isinstance(message, Ping):
            self.say(peer, Pong(message.nonce))
        elif isinstance(message, Upscale):
            if not self.sent:
                self.flood(peer)
            self.say(peer, Started(message.id, message.attempt))
            self.say(peer, TileDone(message.id, message.attempt, 0, ()), (enlarged(TILE),))
            self.say(peer, Credit(1, TILE.nbytes))

    def flood(self, peer: bytes) -> None:
        # A goodbye or a rejection that is whole is a reason to use another worker.
        ends = (Bye, Drained, Reject)
        good = [parts for parts in worker_messages("flood") if not isinstance(decode(parts).message, ends)]
        for parts in itertools.islice(mangled(SEED, good), COUNT):
            self.put([peer, *parts])
            self.sent += 1


@pytest.mark.timeout(170)
def test_a_host_serves_on_among_mangled_messages(settings, detached, open_pool) -> None:
    flood = Flood(endpoints.new_endpoint(settings, "ipc"))
    patient = replace(QUICK, busy=150.0, busy_first=150.0, ping=30.0)
    with stand_in(settings, detached, flood.router.getsockopt_string(zmq.LAST_ENDPOINT)):
        flood.start()
        try:
            eyes = open_pool(detached, timeouts=patient)
            eyes.pool.ready(30)
            # A number that no mangled message names: what is addressed to a batch counts, mangled or not.
            eyes.pool._supervisor._state = eyes.pool._supervisor._state._replace(next_batch=10**12 + 7)
            (future,) = eyes.submit(TILE)
            other = open_pool(detached, keep_alive=0)
            assert np.array_equal(other.up(TILE)[0], enlarged(TILE)), "a pool beside it is not disturbed"
            result = future.result(160)
            assert flood.sent == COUNT
            assert eyes.links()[0].talk.mangled > COUNT // 4, f"seed {SEED}"
            assert result.array.shape == (32, 32, 3), f"seed {SEED}"
            assert np.array_equal(eyes.up(TILE)[0], enlarged(TILE)), f"seed {SEED}"
            assert len([line for line in eyes.of(events.LogLine) if "no message" in line.message]) == 1
        finally:
            flood.stop.set()
            flood.join(10)
