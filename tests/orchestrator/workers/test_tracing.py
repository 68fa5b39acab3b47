"""What a trace says of tiles on their way: with a clock that is set by hand, and with workers that are killed."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest
from worker_kit import enlarged, noise, until

from upx.errors import OutOfMemoryError
from upx.trace import PictureTrace, Tracer
from upx.workers import actions as act
from upx.workers import happenings as hap
from upx.workers import lifecycle
from upx.workers.state import State
from upx.workers.tiles import Answer, Tile, Tiles
from upx.workers.tracing import MOVABLE, Tracing


class Story:
    """A lifecycle whose happenings a tracing sees; seconds are what ``at`` says."""

    def __init__(self, monkeypatch, *, limit: int = 1) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        self.tracer = Tracer()
        self.picture = PictureTrace(self.tracer, 1)
        self.tiles = Tiles()
        self.tracing = Tracing(self.tiles, lambda number: f"w{number}")
        self.state = State(limit=limit)
        self.actions: list = []

    def at(self, now: float, kind: type, *fields: object) -> Story:
        self.now = now
        happening = kind(now + 1000, *fields)  # the lifecycle's clock is another one
        self.state, self.actions = lifecycle.step(self.state, happening)
        self.tracing.see(happening, self.actions)
        return self

    def submit(self, now: float, *numbers: int, traced: bool = True, job: int = 1) -> Story:
        self.now = now
        traces = self.picture.tiles([number + 100 for number in numbers])
        for number, trace in zip(numbers, traces, strict=True):
            left = set(numbers)
            tile = Tile(np.zeros((1, 1, 3)), None, "uint8", None, {}, "", numbers, left, trace if traced else None)
            self.tiles.add({number: tile})
        return self.at(now, hap.Submitted, job, numbers, 10, 10)

    def serving(self, now: float, worker: int = 0) -> Story:
        return self.at(now, hap.Serving, worker, 8, 10**9)

    def done(self, now: float, batch: int, index: int = 0, *, seconds: float, worker: int = 0, attempt: int = 0):
        answer = Answer(None, b"", seconds, f"w{worker}", 4)
        return self.at(now, hap.TileDone, worker, batch, attempt, index, answer, 0)

    def told(self) -> list[tuple]:
        """(name, start, end, args) of every span, and the same of instants, in order."""
        found, begun = [], {}
        for event in json.loads("".join(self.tracer.lines()))["traceEvents"]:
            at = event.get("ts", 0) / 1e6
            if event["ph"] == "b":
                begun[event["id"]] = entry = [event["name"], at, at, event["args"]]
                found.append(entry)
            elif event["ph"] == "e":
                begun[event["id"]][2] = at
            elif event["ph"] in "Xi":
                found.append([event["name"], at, round(at + event.get("dur", 0) / 1e6, 9), event["args"]])
        return [tuple(entry) for entry in found]

    def spans(self, name: str) -> list[tuple]:
        """(tiles, start, end) of each span of that name."""
        return [(args["tiles"], start, end) for told, start, end, args in self.told() if told == name]


@pytest.fixture
def story(monkeypatch):
    return Story(monkeypatch)


def test_a_tile_waits_travels_is_computed_and_comes_back(story) -> None:
    story.submit(1.0, 3).serving(2.0).at(3.0, hap.BatchStarted, 0, 1, 0).done(7.0, 1, seconds=3.5)
    common = {"picture": 1, "tiles": [103], "batch": 1, "attempt": 0, "worker": "w0"}
    assert story.told() == [
        ("queue", 1.0, 2.0, common),
        ("wire", 2.0, 3.0, {**common, "behind_s": 0.0}),
        ("inference", 3.0, 6.5, {**common, "seconds": 3.5}),
        ("wire", 6.5, 7.0, {**common, "back": True}),
    ]


def test_without_a_report_the_worker_s_seconds_say_when_it_was_computed(story) -> None:
    story.submit(1.0, 3).serving(2.0).done(7.0, 1, seconds=3.0)
    assert (story.spans("wire"), story.spans("inference")) == ([([103], 2.0, 4.0)], [([103], 4.0, 7.0)])


def test_a_report_that_comes_late_moves_nothing(story) -> None:
    story.submit(1.0, 3).serving(2.0).at(6.0, hap.BatchStarted, 0, 1, 0).done(7.0, 1, seconds=3.0)
    assert (story.spans("wire"), story.spans("inference")) == ([([103], 2.0, 4.0)], [([103], 4.0, 7.0)])


def test_what_is_computed_does_not_begin_before_it_was_sent(story) -> None:
    story.submit(1.0, 3).serving(2.0).done(4.0, 1, seconds=9.0)
    assert story.spans("inference") == [([103], 2.0, 4.0)]


def test_a_batch_behind_another_begins_after_it_and_says_how_long_it_waited_there(story) -> None:
    story.serving(0.0).at(0.0, hap.Wanted).serving(0.5)
    story.submit(1.0, 3).submit(1.0, 4)
    story.at(1.0, hap.BatchStarted, 0, 1, 0).at(5.0, hap.BatchStarted, 0, 2, 0)  # before the answer of the first
    story.done(5.5, 1, seconds=4.5).done(9.0, 2, seconds=4.0)
    assert story.spans("inference") == [([103], 1.0, 5.0), ([104], 5.0, 9.0)]
    args = [args for name, _, _, args in story.told() if name == "wire"]
    assert [each.get("behind_s") for each in args if "back" not in each] == [0.0, 4.0]
    assert story.spans("wire")[1:] == [([104], 1.0, 5.0), ([103], 5.0, 5.5)]


def test_a_batch_whose_answer_comes_after_the_next_has_begun_is_computed_before_that(story) -> None:
    story.submit(1.0, 3).submit(1.0, 4).serving(1.5)
    story.at(4.0, hap.BatchStarted, 0, 1, 0).at(5.0, hap.BatchStarted, 0, 2, 0).done(5.5, 1, seconds=3.0)
    assert story.spans("inference")[0] == ([103], 2.0, 5.0)


def test_batches_that_are_heard_of_together_each_have_their_seconds(story) -> None:
    story.submit(1.0, 3).submit(1.0, 4).serving(2.0).done(9.0, 1, seconds=3.0).done(9.0, 2, seconds=3.0)
    assert story.spans("inference") == [([103], 3.0, 6.0), ([104], 6.0, 9.0)]
    assert story.spans("wire") == [([103], 2.0, 3.0), ([104], 2.0, 6.0), ([103], 6.0, 9.0)]
    assert [args.get("behind_s") for name, _, _, args in story.told() if name == "wire"] == [0.0, 4.0, None]


def test_batches_go_back_as_far_as_a_later_one_needs_and_no_further(story) -> None:
    story.submit(1.0, 3).submit(1.0, 4).submit(1.0, 5).serving(2.0)
    story.done(6.0, 1, seconds=1.0)  # the third is sent by this
    story.done(8.0, 2, seconds=2.5).done(9.0, 3, seconds=2.0)
    assert story.spans("inference") == [([103], 3.5, 4.5), ([104], 4.5, 7.0), ([105], 7.0, 9.0)]


def test_nothing_goes_back_to_before_it_was_sent(story) -> None:
    story.submit(1.0, 3).submit(1.0, 4).serving(2.0).done(3.0, 1, seconds=0.5).done(3.5, 2, seconds=3.0)
    assert story.spans("inference") == [([103], 2.0, 2.5), ([104], 2.5, 3.5)]


def test_what_is_drawn_of_a_lost_batch_stays_as_it_is(story) -> None:
    story.submit(1.0, 3).submit(1.0, 4).serving(2.0).at(3.0, hap.BatchStarted, 0, 1, 0)
    story.at(6.0, hap.BatchCancelled, 0, 1, 0).done(7.0, 2, seconds=3.0)
    assert story.spans("inference") == [([103], 3.0, 6.0), ([104], 6.0, 7.0)]


def test_only_the_last_batches_of_a_worker_are_kept_and_none_of_one_that_has_gone(story) -> None:
    story.serving(0.0).at(0.0, hap.Wanted).serving(0.5)
    for number in range(1, 2 * MOVABLE):
        story.submit(float(number), number).done(number + 0.5, number, seconds=0.5)
        story.at(number + 0.5, hap.Credited, 0, 1, 10)
    assert [len(bars._last) for bars in story.tracing._bars.values()] == [MOVABLE]
    story.at(1000.0, hap.Died, 0, "killed", True)
    assert story.tracing._bars == {}


def test_a_batch_is_one_span_until_its_last_answer(story) -> None:
    story.submit(1.0, 3, 4).serving(2.0).done(5.0, 1, 0, seconds=1.0).done(6.0, 1, 1, seconds=2.0)
    assert story.spans("inference") == [([103, 104], 3.0, 6.0)]
    assert story.done(6.5, 1, 1, seconds=2.0).spans("queue") == [([103, 104], 1.0, 2.0)]


def test_a_death_cuts_the_span_and_its_tiles_wait_again(story) -> None:
    story.submit(1.0, 3, 4).serving(2.0).at(3.0, hap.BatchStarted, 0, 1, 0).done(4.0, 1, 0, seconds=1.0)
    story.at(5.0, hap.Died, 0, "killed by SIGKILL", True)
    story.at(6.0, hap.Tick).serving(8.0, 1).done(9.0, 2, seconds=0.5, worker=1, attempt=1)
    told = story.told()
    assert [each[:3] for each in told] == [
        ("queue", 1.0, 2.0), ("wire", 2.0, 3.0), ("inference", 3.0, 5.0), ("queue", 5.0, 8.0),
        ("died", 5.0, 5.0), ("requeued", 5.0, 5.0), ("wire", 8.0, 8.5), ("inference", 8.5, 9.0),
    ]  # fmt: skip
    args = {name: args for name, _, _, args in told[2:6]}
    assert (args["inference"]["outcome"], args["inference"]["worker"]) == ("died", "w0")
    assert args["died"] == {"worker": "w0", "reason": "killed by SIGKILL"}
    assert args["requeued"] == {"picture": 1, "tiles": [104], "batch": 1, "attempt": 0, "worker": "w0"}
    assert (told[-1][3]["tiles"], told[-1][3]["attempt"], told[-1][3]["worker"]) == ([104], 1, "w1")


def test_a_worker_that_is_killed_for_being_late_is_told_too(story) -> None:
    story.submit(1.0, 3).serving(2.0).at(3.0, hap.BatchStarted, 0, 1, 0)
    for second in range(4, 900, 2):
        story.at(second, hap.Tick)
        if any(isinstance(action, act.KillWorker) for action in story.actions):
            break
    names = [name for name, *_ in story.told()]
    assert names.count("killed") == names.count("requeued") == 1


@pytest.mark.parametrize(
    ("kind", "fields", "outcome"),
    [
        (hap.SessionLost, (), "session lost"),
        (hap.BatchCancelled, (1, 0), "cancelled"),
        (hap.BatchRefused, (1,), "refused"),
        (hap.BatchFailed, (1, 0, "transient", "not now"), "transient"),
    ],
)
def test_what_a_worker_gives_back_is_requeued(story, kind, fields, outcome) -> None:
    story.submit(1.0, 3).serving(2.0).at(3.0, kind, 0, *fields)
    told = story.told()
    assert next(args["outcome"] for name, _, _, args in told if name == "wire") == outcome
    assert [args["tiles"] for name, _, _, args in told if name == "requeued"] == [[103]]


def test_what_fails_for_good_is_not_requeued_and_nothing_is_kept_of_it(story) -> None:
    story.submit(1.0, 3).submit(1.0, 4).submit(1.0, 5).serving(2.0)
    story.at(3.0, hap.BatchFailed, 0, 1, 0, "oom", "full").at(4.0, hap.JobCancelled, 1)
    story.at(5.0, hap.BatchCancelled, 0, 2, 0).at(5.0, hap.BatchCancelled, 0, 3, 0)
    assert story.tracing._open == {}
    assert story.tracing._flights == {}
    told = story.told()
    assert [args["outcome"] for name, _, _, args in told if name == "wire"] == ["oom", "cancelled", "cancelled"]
    assert not [name for name, *_ in told if name == "requeued"]


def test_tiles_that_never_had_a_worker_are_drawn_as_waiting(story) -> None:
    story.submit(1.0, 3).at(4.0, hap.JobCancelled, 1)
    ((name, start, end, args),) = story.told()
    assert (name, start, end, args["outcome"]) == ("queue", 1.0, 4.0, "cancelled")


def test_tiles_of_other_jobs_are_not_recorded(story) -> None:
    story.submit(1.0, 3, traced=False).serving(2.0).at(3.0, hap.BatchStarted, 0, 1, 0).done(7.0, 1, seconds=3.0)
    story.at(8.0, hap.Died, 0, "killed", True)
    assert story.tracer.empty


def test_a_pool_without_a_trace_has_nothing_that_looks(open_pool, plan) -> None:
    eyes = open_pool(plan)
    eyes.up(noise(1))
    assert eyes.pool._supervisor._tracing is None


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_worker_killed_while_it_computes_stands_in_the_trace(open_pool, plan, transport) -> None:
    tracer, tiles = Tracer(), [noise(seed) for seed in range(4)]
    eyes = open_pool(plan, transport=transport)
    picture = PictureTrace(tracer, 1)
    futures = [
        eyes.pool.submit([tile], out_dtype="uint8", job=1, params={"delay": 0.3}, traces=picture.tiles([index]))[0]
        for index, tile in enumerate(tiles)
    ]
    os.kill(eyes.in_flight(), signal.SIGKILL)
    for tile, future in zip(tiles, futures, strict=True):
        assert np.array_equal(future.result(30).array, enlarged(tile))
    for _ in until(5):
        if not eyes.pool._supervisor._tracing._flights:
            break
    events = json.loads("".join(tracer.lines()))["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "i"][:2] == ["died", "requeued"]
    whole = [e for e in events if e["name"] == "inference" and "seconds" in e["args"]]
    assert sorted(index for event in whole for index in event["args"]["tiles"]) == [0, 1, 2, 3]
    assert all(event["args"]["seconds"] >= 0.3 for event in whole)
    (lost,) = [event for event in events if event["args"].get("outcome") == "died" and event["name"] == "inference"]
    assert lost["args"]["tiles"] == [0]


def test_memory_that_runs_out_is_drawn_as_the_end_of_a_batch(open_pool, plan) -> None:
    tracer = Tracer()
    eyes = open_pool(plan, params={})
    (future,) = eyes.pool.submit(
        [noise(1)], out_dtype="uint8", job=1, params={"oom_above": 1}, traces=PictureTrace(tracer, 1).tiles([0])
    )
    with pytest.raises(OutOfMemoryError):
        future.result(30)
    events = json.loads("".join(tracer.lines()))["traceEvents"]
    assert [event["args"]["outcome"] for event in events if "outcome" in event["args"]] == ["oom"]
