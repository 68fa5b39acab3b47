"""The lifecycle's decisions, one by one, and its promises under anything that may happen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings as configure
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from upx.workers import actions as act
from upx.workers import copies
from upx.workers import happenings as hap
from upx.workers.deadlines import PAUSE_S, busy_deadline
from upx.workers.lifecycle import step
from upx.workers.plan import Timeouts
from upx.workers.state import State

TIMES = Timeouts(busy=2.0, busy_first=2.0, backoff=0.1)


class Play:
    """A state and the clock; every call returns what was decided."""

    def __init__(self, **changes) -> None:
        self.state = State(timeouts=TIMES, **changes)
        self.now = 100.0

    def say(self, happening: type, *args) -> list:
        self.state, actions = step(self.state, happening(self.now, *args))
        return actions

    def submit(self, *tiles: int, job: int = 1) -> list:
        return self.say(hap.Submitted, job, tiles, 10 * len(tiles), 100 * len(tiles))

    def serving(self, number: int = 0, tiles: int = 8, nbytes: int = 1000) -> list:
        return self.say(hap.Serving, number, tiles, nbytes)

    def tick(self, seconds: float) -> list:
        out: list = []
        for _ in range(max(1, int(seconds / 0.5))):
            self.now += min(seconds, 0.5)
            out += self.say(hap.Tick)
        return out


def of(actions: list, kind: type) -> list:
    return [action for action in actions if isinstance(action, kind)]


def sent(actions: list) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(a.batch.id, a.batch.attempt, a.batch.tiles) for a in of(actions, act.SendBatch)]


def test_the_first_tile_starts_one_worker_and_is_sent_when_it_serves() -> None:
    play = Play(limit=3)
    assert play.submit(7) == [act.StartWorker(0)]
    assert sent(play.serving()) == [(1, 0, (7,))]


def test_workers_are_as_many_as_batches_and_never_more_than_the_limit() -> None:
    play = Play(limit=2)
    started = [action for tile in range(5) for action in play.submit(tile)]
    assert started == [act.StartWorker(0), act.StartWorker(1)]


def test_a_worker_has_two_batches_at_most_and_the_next_when_one_is_done() -> None:
    play = Play()
    for tile in range(4):
        play.submit(tile)
    assert len(sent(play.serving())) == 2
    assert sent(play.say(hap.TileDone, 0, 1, 0, 0, "x")) == [(3, 0, (2,))]


def test_nothing_is_sent_beyond_the_credit_and_more_when_it_comes_back() -> None:
    play = Play()
    play.submit(1, 2)
    play.submit(3, 4)
    assert len(sent(play.serving(tiles=3))) == 1
    assert sent(play.say(hap.Credited, 0, 1, 10)) == [(2, 0, (3, 4))]


def test_a_batch_larger_than_all_credit_travels_tile_by_tile() -> None:
    play = Play()
    play.submit(1, 2, 3)
    actions = play.serving(tiles=2) + play.tick(0.5)
    assert [tiles for _, _, tiles in sent(actions)] == [(1,), (2,)]


def test_a_late_answer_is_dropped_by_its_attempt() -> None:
    play = Play()
    play.submit(1)
    play.serving()
    play.say(hap.SessionLost, 0)
    assert sent(play.serving()) == [(1, 1, (1,))]
    assert of(play.say(hap.TileDone, 0, 1, 0, 0, "late"), act.Deliver) == []
    assert of(play.say(hap.TileDone, 0, 1, 1, 0, "good"), act.Deliver) == [act.Deliver(1, "good")]
    assert of(play.say(hap.TileDone, 0, 1, 1, 0, "twice"), act.Deliver) == []


def test_what_was_not_begun_goes_on_blameless_and_in_its_composition() -> None:
    play = Play()
    play.submit(1, 2)
    play.submit(3, 4)
    play.serving()
    play.say(hap.BatchStarted, 0, 1, 0)
    actions = play.say(hap.Died, 0, "killed", True)
    assert [(a.tiles, a.alone) for a in of(actions, act.Requeued)] == [(1, True), (1, True), (2, False)]
    assert [(b.tiles, b.kills, b.alone) for b in play.state.queue] == [
        ((1,), 1, True), ((2,), 1, True), ((3, 4), 0, False),
    ]  # fmt: skip


def test_a_batch_of_which_tiles_are_done_keeps_its_composition_and_answers_once() -> None:
    play = Play()
    play.submit(1, 2)
    play.serving()
    play.say(hap.TileDone, 0, 1, 0, 0, "one")
    play.say(hap.Died, 0, "ended on purpose", False)
    play.tick(0.5)
    assert sent(play.serving(1)) == [(1, 1, (1, 2))]
    assert of(play.say(hap.TileDone, 1, 1, 1, 0, "again"), act.Deliver) == []
    assert of(play.say(hap.TileDone, 1, 1, 1, 1, "two"), act.Deliver) == [act.Deliver(2, "two")]


def test_a_suspect_is_alone_on_its_worker() -> None:
    play = Play()
    play.submit(1)
    play.submit(2)
    play.serving()
    play.say(hap.BatchStarted, 0, 1, 0)
    play.say(hap.Died, 0, "killed", True)
    play.tick(1.0)
    assert [tiles for _, _, tiles in sent(play.serving(1))] == [(1,)]
    play.say(hap.BatchStarted, 1, 1, 1)
    assert [tiles for _, _, tiles in sent(play.say(hap.TileDone, 1, 1, 1, 0, ""))] == [(2,)]


def test_the_second_death_makes_a_tile_poison_and_it_alone() -> None:
    play = Play()
    play.submit(1)
    play.submit(2)
    for worker, attempt in ((0, 0), (1, 1)):
        play.serving(worker)
        play.say(hap.BatchStarted, worker, 1, attempt)
        actions = play.say(hap.Died, worker, "killed", True)
        play.tick(1.0)
    assert [(a.tile, a.cause) for a in of(actions, act.FailTile)] == [(1, "poison")]
    assert [tiles for _, _, tiles in sent(play.serving(2))] == [(2,)]


def test_a_death_whose_start_was_never_reported_tries_the_first_batch_alone_before_it_blames() -> None:
    play = Play()
    play.submit(1, 2)
    play.serving()
    play.say(hap.Died, 0, "crashed", True)
    assert [(b.tiles, b.kills, b.alone) for b in play.state.queue] == [((1, 2), 0, True)]
    play.tick(1.0)
    play.serving(1)
    play.say(hap.Died, 1, "crashed", True)
    assert [(b.tiles, b.kills) for b in play.state.queue] == [((1,), 1), ((2,), 1)]


def test_deaths_on_purpose_are_never_counted() -> None:
    play = Play()
    play.submit(1)
    for worker in range(20):
        play.serving(worker)
        play.say(hap.BatchStarted, worker, 1, worker)
        assert of(play.say(hap.Died, worker, "stopped", False), act.FailTile) == []
        play.tick(0.5)


def test_starts_that_fail_back_off_and_end_with_everything_told() -> None:
    play = Play()
    play.say(hap.Wanted)
    play.submit(1)
    for worker in range(3):
        actions = play.say(hap.StartFailed, worker, "no", None)
        assert of(actions, act.StartWorker) == []
        if worker < 2:
            assert of(play.tick(1.0), act.StartWorker) == [act.StartWorker(worker + 1)]
    assert [(a.tile, a.cause) for a in of(actions, act.FailTile)] == [(1, "lost")]
    assert of(actions, act.GaveUp) == [act.GaveUp("no", None)]
    assert of(play.tick(20.0), act.StartWorker) == []
    assert of(play.submit(2), act.StartWorker) == [act.StartWorker(3)]


def test_an_error_that_lasts_is_not_tried_again() -> None:
    play, error = Play(), ValueError("no such file")
    play.submit(1)
    actions = play.say(hap.StartFailed, 0, "no such file", error)
    assert of(actions, act.FailTile)[0].error is error


def test_one_worker_that_cannot_start_does_not_take_the_others_work() -> None:
    play = Play(limit=2)
    play.submit(1)
    play.submit(2)
    play.serving(0)
    actions = play.say(hap.StartFailed, 1, "out of memory", MemoryError())
    assert of(actions, act.FailTile) == []
    assert of(play.tick(10.0), act.StartWorker) == []


def test_a_batch_that_ended_before_it_was_seen_to_begin_took_no_longer_than_since_it_was_sent() -> None:
    play = Play(limit=1)
    play.submit(1)
    play.serving()
    play.now += 0.1
    play.say(hap.TileDone, 0, 1, 0, 0, "answer")
    assert [round(took, 3) for took in play.state.seen[100]] == [0.1]


def test_a_started_batch_has_a_deadline_that_follows_what_was_seen() -> None:
    play = Play()
    play.submit(1)
    play.serving()
    play.say(hap.BatchStarted, 0, 1, 0)
    assert busy_deadline(play.state, play.state.workers[0].sent[0].batch) == 2.0
    play.tick(1.0)
    play.say(hap.TileDone, 0, 1, 0, 0, "")
    play.submit(2)
    assert busy_deadline(play.state, play.state.workers[0].sent[0].batch) == pytest.approx(10.0)


def test_a_batch_over_its_deadline_costs_the_worker_its_life_and_is_suspect() -> None:
    play = Play()
    play.submit(1)
    play.serving()
    play.say(hap.BatchStarted, 0, 1, 0)
    assert of(play.tick(2.0), act.KillWorker) == []
    (kill,) = of(play.tick(0.5), act.KillWorker)
    assert not kill.abandon
    assert play.state.queue[0].kills == 1


def test_a_worker_that_answers_other_hosts_is_left_to_them() -> None:
    play = Play()
    play.submit(1)
    play.serving()
    play.say(hap.BatchStarted, 0, 1, 0)
    for _ in range(5):
        actions = play.tick(0.5)
        play.say(hap.Ponged, 0, 2, 0)
    assert of(actions, act.KillWorker)[0].abandon


def test_pings_that_are_not_answered_end_an_idle_worker_and_not_one_that_computes() -> None:
    play = Play()
    play.say(hap.Wanted)
    play.serving()
    actions = play.tick(7.0)
    assert len(of(actions, act.SendPing)) == 5
    assert "pings" in of(actions, act.KillWorker)[0].reason


def test_a_pause_of_the_host_itself_is_nobodys_fault() -> None:
    play = Play()
    play.submit(1)
    play.serving()
    play.say(hap.BatchStarted, 0, 1, 0)
    play.tick(1.0)
    play.now += PAUSE_S + 60
    assert of(play.say(hap.Tick), act.KillWorker) == []
    assert of(play.tick(1.5), act.KillWorker) != []


def test_a_worker_that_leaves_gets_nothing_new_and_is_replaced() -> None:
    play = Play()
    play.submit(1)
    play.serving()
    assert of(play.say(hap.Leaving, 0), act.StartWorker) == [act.StartWorker(1)]
    play.submit(2)
    assert sent(play.serving(1)) == [(2, 0, (2,))]
    assert of(play.say(hap.TileDone, 0, 1, 0, 0, "kept"), act.Deliver) == [act.Deliver(1, "kept")]


def test_what_is_transient_is_tried_again_but_not_for_ever() -> None:
    play = Play()
    play.state = play.state._replace(timeouts=replace(TIMES, busy=60.0))
    play.submit(1)
    play.serving()
    failed: list = []
    for attempt in range(TIMES.retries):
        failed += of(play.say(hap.BatchFailed, 0, 1, attempt, "transient", "busy"), act.FailTile)
        play.say(hap.Ponged, 0, 1, 0)
        play.say(hap.Credited, 0, 1, 10)
        for _ in range(20):
            play.tick(0.5)
            play.say(hap.Ponged, 0, 1, 0)
    assert [(a.tile, a.cause) for a in failed] == [(1, "lost")]


def test_a_cancelled_job_is_dropped_where_it_waits_and_where_it_was_sent() -> None:
    play = Play()
    for tile in range(3):
        play.submit(tile)
    play.serving()
    actions = play.say(hap.JobCancelled, 1)
    assert sorted(a.tile for a in of(actions, act.FailTile)) == [0, 1, 2]
    assert [(a.batch, a.attempt) for a in of(actions, act.SendCancel)] == [(1, 0), (2, 0)]
    assert of(play.say(hap.TileDone, 0, 1, 0, 0, "late"), act.Deliver) == []
    assert play.say(hap.BatchCancelled, 0, 2, 0) == []


def test_a_batch_refused_for_want_of_credit_is_sent_again_later() -> None:
    play = Play()
    play.submit(1)
    play.serving()
    assert sent(play.say(hap.BatchRefused, 0, 1)) == []
    assert sent(play.tick(1.0)) == [(1, 1, (1,))]


def late() -> Play:
    """Two machines: the first has a batch for too long, of which the second, far away, was just given a copy."""
    play = Play(limit=2, varied=True)
    play.submit(1)
    play.submit(2)
    play.serving(0)
    play.say(hap.Serving, 1, 8, 1000, True)
    play.say(hap.BatchStarted, 0, 1, 0)
    assert len(of(play.say(hap.TileDone, 0, 1, 0, 0, "one"), act.Deliver)) == 1
    copies = [action for _ in range(4) for action in of(play.tick(0.5), act.SendBatch)]
    assert [(copy.worker, copy.batch.id, copy.batch.attempt) for copy in copies] == [(1, 2, 0)]
    return play


def test_the_first_answer_to_a_batch_and_its_copy_counts() -> None:
    play = late()
    done = play.say(hap.TileDone, 1, 2, 0, 0, "fast")
    assert [action.payload for action in of(done, act.Deliver)] == ["fast"]
    assert [(a.worker, a.batch) for a in of(done, act.SendCancel)] == [(0, 2)]
    assert of(play.say(hap.TileDone, 0, 2, 0, 0, "slow"), act.Deliver) == []
    play.say(hap.BatchCancelled, 0, 2, 0)
    assert play.state.workers[0].sent == ()


def test_workers_that_have_nothing_to_do_copy_a_batch_once() -> None:
    play = Play(limit=3, varied=True)
    for tile in (1, 2, 3):
        play.submit(tile)
    for worker in range(3):
        play.say(hap.Serving, worker, 8, 1000, True)
    for worker, batch in ((0, 2), (1, 3)):
        play.say(hap.TileDone, worker, batch, 0, 0, "x")
    play.say(hap.BatchStarted, 0, 1, 0)
    # Both are idle, and find it late with the same happening.
    play.state = play.state._replace(timeouts=replace(TIMES, busy=60.0))
    play.now += 1.5
    assert [copy[0] for copy in sent(play.say(hap.Tick))] == [1]


def test_nothing_is_weighed_for_a_worker_that_could_take_nothing(monkeypatch) -> None:
    def worth(*_: object) -> None:
        raise AssertionError("the sents of all workers were looked through")

    monkeypatch.setattr(copies, "worth", worth)
    play = Play(limit=3, varied=True)
    for tile in (1, 2, 3):
        play.submit(tile)
    play.say(hap.Serving, 0, 8, 1000, True)
    assert play.state.queue != ()
    play.say(hap.Credited, 0, 3, 30)
    play.say(hap.TileDone, 0, 1, 0, 0, "x")
    assert play.state.queue == ()
    assert [worker.phase for worker in play.state.workers.values()] == ["serving", "starting", "starting"]
    play.tick(1.0)


def test_what_has_a_copy_elsewhere_is_not_requeued() -> None:
    play = late()
    assert of(play.say(hap.Died, 0, "the link", False), act.Requeued) == []
    assert [a.tile for a in of(play.say(hap.TileDone, 1, 2, 0, 0, "x"), act.Deliver)] == [2]


def test_a_batch_with_a_copy_fails_once() -> None:
    play = late()
    failed = play.say(hap.BatchFailed, 0, 2, 0, "input", "no such colour")
    assert [a.tile for a in of(failed, act.FailTile)] == [2]
    assert [(a.worker, a.batch) for a in of(failed, act.SendCancel)] == [(1, 2)]
    assert of(play.say(hap.BatchFailed, 1, 2, 0, "input", "no such colour"), act.FailTile) == []


def test_a_cancelled_job_with_a_copy_fails_each_tile_once() -> None:
    cancelled = late().say(hap.JobCancelled, 1)
    assert [a.tile for a in of(cancelled, act.FailTile)] == [2]
    assert sorted(a.worker for a in of(cancelled, act.SendCancel)) == [0, 1]


def far_death(play: Play, worker: int, *, died: bool) -> list:
    """A worker far away is lost, another is reached in its place, and it is known what had happened."""
    actions = play.say(hap.Died, worker, "the link", False, True)
    (start,) = of([*actions, *play.tick(1.0)], act.StartWorker)
    actions += play.say(hap.Explained, worker, died)
    return actions + play.say(hap.Serving, start.worker, 8, 1000, True)


def test_a_tile_that_ends_workers_far_away_is_poison_and_it_alone() -> None:
    play = Play(varied=True)
    for tile in (1, 2):
        play.submit(tile)
    play.say(hap.Serving, 0, 8, 1000, True)
    play.say(hap.BatchStarted, 0, 1, 0)
    again = sent(far_death(play, 0, died=True))
    assert [tiles for _, _, tiles in again] == [(1,)], "it is tried with nothing beside it"
    play.say(hap.BatchStarted, 1, again[0][0], again[0][1])
    actions = far_death(play, 1, died=True)
    assert [(a.tile, a.cause) for a in of(actions, act.FailTile)] == [(1, "poison")]
    assert [tiles for _, _, tiles in sent(actions)] == [(2,)]


def test_links_that_end_make_nothing_poison() -> None:
    play = Play(varied=True)
    play.submit(1)
    play.say(hap.Serving, 0, 8, 1000, True)
    for worker in range(6):
        play.say(hap.BatchStarted, worker, 1, worker)
        assert of(far_death(play, worker, died=False), act.FailTile) == []
    assert play.state.accused == {}


def two_far_away() -> tuple[Play, int]:
    """Two workers far away with a batch each; whose is the first."""
    play = Play(limit=2, varied=True)
    play.submit(1)
    play.submit(2)
    play.say(hap.Serving, 0, 8, 1000, True)
    play.say(hap.Serving, 1, 8, 1000, True)
    return play, next(worker.id for worker in play.state.workers.values() if worker.sent[0].batch.id == 1)


def test_what_is_accused_while_another_computes_it_is_suspected_there() -> None:
    play, first = two_far_away()
    play.say(hap.BatchStarted, first, 1, 0)
    play.say(hap.Died, first, "the link", False, True)
    play.say(hap.Explained, first, True)
    assert [each.batch.kills for each in play.state.workers[1 - first].sent if each.batch.id == 1] == [1]


def test_what_is_not_known_to_have_begun_far_away_is_tried_alone_before_it_is_blamed() -> None:
    play = Play(varied=True)
    play.submit(1)
    play.submit(2)
    play.say(hap.Serving, 0, 8, 1000, True)
    again = sent(far_death(play, 0, died=True))
    assert [tiles for _, _, tiles in again] == [(1,)], "it is tried with nothing beside it"
    assert [each.batch.kills for each in play.state.workers[1].sent] == [0]
    # As on this machine: three deaths, where no report of a start comes.
    assert of(far_death(play, 1, died=True), act.FailTile) == []
    assert [each.batch.kills for each in play.state.workers[2].sent] == [1]
    assert [(a.tile, a.cause) for a in of(far_death(play, 2, died=True), act.FailTile)] == [(1, "poison")]


def test_a_tile_that_waits_at_a_worker_whenever_another_hosts_tile_ends_it_is_answered() -> None:
    play = Play(varied=True)
    play.submit(1)
    play.say(hap.Serving, 0, 8, 1000, True)
    failed = [action for worker in (0, 1) for action in of(far_death(play, worker, died=True), act.FailTile)]
    assert failed == []
    (item,) = play.state.workers[2].sent
    done = play.say(hap.TileDone, 2, item.batch.id, item.batch.attempt, 0, "x")
    assert of(done, act.Deliver) == [act.Deliver(1, "x")]


@pytest.mark.parametrize("begun", [False, True], ids=["waits there", "is computed there"])
def test_what_was_not_known_to_have_begun_and_is_elsewhere_by_now_stays_there_blameless(*, begun: bool) -> None:
    play, first = two_far_away()
    play.say(hap.Died, first, "the link", False, True)
    if begun:
        play.say(hap.BatchStarted, 1 - first, 1, 1)
    actions = play.say(hap.Explained, first, True)
    assert actions == []
    (there,) = [each.batch for each in play.state.workers[1 - first].sent if each.batch.id == 1]
    assert (there.kills, there.alone) == (0, False)


def test_where_one_machine_cannot_serve_another_is_tried_before_anybody_gives_up() -> None:
    play = Play(limit=2, varied=True)
    play.submit(1)
    broken = ValueError("other weights")
    assert of(play.say(hap.StartFailed, 0, "other weights", broken), act.GaveUp) == []
    assert of(play.tick(1.0), act.StartWorker) == [act.StartWorker(1)]
    gone = play.say(hap.StartFailed, 1, "unreachable", ValueError("unreachable"))
    assert len(of(gone, act.GaveUp)) == 1
    assert [a.tile for a in of(gone, act.FailTile)] == [1]


def test_a_pool_that_is_widened_starts_more_workers() -> None:
    play = Play(varied=True)
    for tile in range(4):
        play.submit(tile)
    play.serving(0)
    assert of(play.tick(1.0), act.StartWorker) == []
    assert of(play.say(hap.Widened, 2), act.StartWorker) == [act.StartWorker(1)]
    assert of(play.say(hap.Widened, 1), act.StartWorker) == []


def test_only_the_sizes_of_late_are_remembered() -> None:
    play = Play()
    play.serving()
    play.say(hap.Wanted)
    play.serving()
    for number in range(1, 200):
        play.say(hap.Submitted, 1, (number,), 10, 100 + number % 150)
        play.say(hap.TileDone, 0, number, 0, 0, "x")
        play.say(hap.Credited, 0, 1, 10)
    assert len(play.state.seen) == 64
    assert 100 + 199 % 150 in play.state.seen


def test_a_size_that_is_seen_again_is_one_of_late() -> None:
    play = Play()
    play.say(hap.Wanted)
    play.serving()
    for number, pixels in enumerate([*range(64), 0, 64], start=1):
        play.say(hap.Submitted, 1, (number,), 10, pixels)
        play.say(hap.TileDone, 0, number, 0, 0, "x")
        play.say(hap.Credited, 0, 1, 10)
    assert list(play.state.seen) == [*range(2, 64), 0, 64]
    assert len(play.state.seen[0]) == 2


class World(RuleBasedStateMachine):
    """Hosts, workers and the kernel at their worst; the promises stand in ``invariant`` and ``teardown``."""

    @initialize(limit=st.integers(1, 3))
    def begin(self, limit: int) -> None:
        self.play, self.limit = Play(limit=limit), limit
        self.next_tile = 0
        self.waiting: set[int] = set()
        self.answered: set[int] = set()
        self.credit: dict[int, list[int]] = {}
        self.alive: set[int] = set()
        self.attempts: dict[int, int] = {}
        self.blamed: dict[int, int] = {}
        self.starts = 0

    def say(self, happening: type, *args) -> list:
        """Say it, and hold every decision against the promises."""
        actions = self.play.say(happening, *args)
        for action in actions:
            self._check(action)
        return actions

    def _check(self, action: act.Action) -> None:
        if isinstance(action, act.StartWorker):
            assert action.worker not in self.alive
            self.alive.add(action.worker)
            self.starts += 1
        elif isinstance(action, (act.Deliver, act.FailTile)):
            assert action.tile in self.waiting, "answered twice, or never asked for"
            self.waiting.discard(action.tile)
            if isinstance(action, act.FailTile) and action.cause == "poison":
                assert self.blamed.get(action.tile, 0) >= 2
        elif isinstance(action, act.SendBatch):
            self._check_sent(action)
        elif isinstance(action, (act.SendCancel, act.SendPing, act.KillWorker)):
            assert action.worker in self.alive

    def _check_sent(self, action: act.SendBatch) -> None:
        assert action.worker in self.alive
        tiles, nbytes = self.credit[action.worker]
        assert len(action.batch.tiles) <= tiles
        assert action.batch.nbytes <= nbytes or len(action.batch.tiles) == 1
        self.credit[action.worker] = [tiles - len(action.batch.tiles), nbytes - action.batch.nbytes]
        for tile in action.batch.open:
            assert action.batch.attempt > self.attempts.get(tile, -1), "attempts grow"
            self.attempts[tile] = action.batch.attempt

    def _worker(self, pick: int, *phases: str) -> int | None:
        fitting = [w.id for w in self.play.state.workers.values() if w.phase in phases]
        return fitting[pick % len(fitting)] if fitting else None

    def _sent(self, pick: int):
        fitting = [(w.id, s) for w in self.play.state.workers.values() for s in w.sent]
        return fitting[pick % len(fitting)] if fitting else (None, None)

    @rule(count=st.integers(1, 4), job=st.integers(1, 2))
    def submit(self, count: int, job: int) -> None:
        tiles = tuple(range(self.next_tile, self.next_tile + count))
        self.next_tile += count
        self.waiting |= set(tiles)
        self.say(hap.Submitted, job, tiles, 10 * count, 100 * count)

    @rule()
    def want(self) -> None:
        self.say(hap.Wanted)

    @rule(job=st.integers(1, 2))
    def cancel(self, job: int) -> None:
        self.say(hap.JobCancelled, job)

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 30.0]))
    def tick(self, seconds: float) -> None:
        self.play.now += seconds
        self.say(hap.Tick)

    @rule(pick=st.integers(0, 9), tiles=st.integers(1, 6), nbytes=st.sampled_from([15, 1000]))
    def serve(self, pick: int, tiles: int, nbytes: int) -> None:
        worker = self._worker(pick, "starting")
        if worker is not None:
            self.credit[worker] = [tiles, nbytes]
            self.say(hap.Serving, worker, tiles, nbytes)

    @rule(pick=st.integers(0, 9), lasting=st.booleans())
    def fail_to_start(self, pick: int, *, lasting: bool) -> None:
        worker = self._worker(pick, "starting")
        if worker is not None:
            self.alive.discard(worker)
            self.say(hap.StartFailed, worker, "no", ValueError() if lasting else None)

    @rule(pick=st.integers(0, 9), died=st.booleans(), explained=st.booleans())
    def lose_far_away(self, pick: int, *, died: bool, explained: bool) -> None:
        worker = self._worker(pick, "serving", "leaving")
        if worker is None:
            return
        self.alive.discard(worker)
        self.say(hap.Died, worker, "the link", False, True)
        if explained:
            for item in self.play.state.accused.get(worker, ()) if died else ():
                for tile in item.batch.open if item.started is not None or item.batch.alone else ():
                    self.blamed[tile] = self.blamed.get(tile, 0) + 1
            self.say(hap.Explained, worker, died)

    @rule(pick=st.integers(0, 9))
    def start_batch(self, pick: int) -> None:
        worker, item = self._sent(pick)
        if item is not None:
            self.say(hap.BatchStarted, worker, item.batch.id, item.batch.attempt)

    @rule(pick=st.integers(0, 9), index=st.integers(0, 4), late=st.booleans())
    def answer(self, pick: int, index: int, *, late: bool) -> None:
        worker, item = self._sent(pick)
        if item is None:
            return
        fresh = not late and index < len(item.batch.tiles) and index not in item.batch.done
        self.say(hap.TileDone, worker, item.batch.id, item.batch.attempt - int(late), index, "x")
        if fresh and worker in self.credit:
            self._credit(worker, 1, 10)

    def _credit(self, worker: int, tiles: int, nbytes: int) -> None:
        known = self.play.state.workers.get(worker)
        if known is not None:
            have = self.credit[worker]
            self.credit[worker] = [min(known.most_tiles, have[0] + tiles), min(known.most_bytes, have[1] + nbytes)]
            self.say(hap.Credited, worker, tiles, nbytes)

    @rule(pick=st.integers(0, 9), cause=st.sampled_from(["oom", "input", "fatal", "transient"]))
    def fail_batch(self, pick: int, cause: str) -> None:
        worker, item = self._sent(pick)
        if item is not None:
            self.say(hap.BatchFailed, worker, item.batch.id, item.batch.attempt, cause, "no")
            self._credit(worker, len(item.batch.open), 10 * len(item.batch.open))

    @rule(pick=st.integers(0, 9), blame=st.booleans())
    def die(self, pick: int, *, blame: bool) -> None:
        worker = self._worker(pick, "serving", "leaving", "ending")
        if worker is None:
            return
        if blame:
            self._blame(worker)
        self.alive.discard(worker)
        self.say(hap.Died, worker, "gone", blame)

    def _blame(self, worker: int) -> None:
        for item in self.play.state.workers[worker].sent:
            for tile in item.batch.tiles:
                self.blamed[tile] = self.blamed.get(tile, 0) + 1

    @precondition(lambda self: self.play.state.workers)
    @rule(pick=st.integers(0, 9))
    def hang(self, pick: int) -> None:
        """Nothing is heard of a worker until its deadline."""
        worker = self._worker(pick, "serving")
        if worker is not None:
            for number in self.play.state.workers:
                self._blame(number)
            for _ in range(8):
                self.tick(0.5)

    @rule(pick=st.integers(0, 9))
    def lose_session(self, pick: int) -> None:
        worker = self._worker(pick, "serving")
        if worker is not None:
            self.say(hap.SessionLost, worker)

    @rule(pick=st.integers(0, 9))
    def leave(self, pick: int) -> None:
        worker = self._worker(pick, "serving", "starting", "ending")
        if worker is not None:
            self.say(hap.Leaving, worker)

    @rule(pick=st.integers(0, 9), hosts=st.integers(1, 2), done=st.integers(0, 50))
    def pong(self, pick: int, hosts: int, done: int) -> None:
        worker = self._worker(pick, "serving", "leaving")
        if worker is not None:
            self.say(hap.Ponged, worker, hosts, done)

    @invariant()
    def every_waiting_tile_is_in_exactly_one_place(self) -> None:
        if not hasattr(self, "play"):
            return
        places = [tile for batch in self.play.state.queue for tile in batch.open]
        for worker in self.play.state.workers.values():
            places += [tile for item in worker.sent if not item.dropped for tile in item.batch.open]
        assert sorted(places) == sorted(self.waiting)

    @invariant()
    def workers_stay_within_the_limit(self) -> None:
        if hasattr(self, "play"):
            counted = [w for w in self.play.state.workers.values() if w.phase in {"starting", "serving"}]
            assert len(counted) <= self.limit
            # A tile may cost two deaths and a few starts; nothing restarts for ever.
            assert self.starts <= 12 * (self.next_tile + 5) + 40

    def teardown(self) -> None:
        """With workers that behave from here on, everything that waits is answered."""
        if not hasattr(self, "play"):
            return
        for _ in range(60 * (len(self.waiting) + 2)):
            self.play.now += 0.5
            self.say(hap.Tick)
            for worker in list(self.play.state.workers.values()):
                self._behave(worker)
            if not self.waiting:
                break
        assert not self.waiting, "tiles were lost"

    def _behave(self, worker) -> None:
        if worker.phase == "ending" or (worker.phase == "leaving" and not worker.sent):
            self.alive.discard(worker.id)
            self.say(hap.Died, worker.id, "gone", False)
        elif worker.phase == "starting":
            self.credit[worker.id] = [4, 1000]
            self.say(hap.Serving, worker.id, 4, 1000)
        else:
            self.say(hap.Ponged, worker.id, 1, 0)
            for item in worker.sent:
                for index in range(len(item.batch.tiles)):
                    self.say(hap.TileDone, worker.id, item.batch.id, item.batch.attempt, index, "x")
                if item.dropped:
                    self.say(hap.BatchCancelled, worker.id, item.batch.id, item.batch.attempt)
            self._credit(worker.id, worker.most_tiles, worker.most_bytes)


TestWorld = World.TestCase
TestWorld.settings = configure(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_state_is_never_changed_in_place() -> None:
    play = Play()
    before = play.state._replace()
    step(play.state, hap.Submitted(1.0, 1, (1,), 10, 100))
    assert play.state == before
