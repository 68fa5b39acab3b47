"""What each worker is given by its pace and its way: the lifecycle's own code, on links that are simulated."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import pytest

from upx.workers import actions as act
from upx.workers import happenings as hap
from upx.workers.lifecycle import step
from upx.workers.pacing import DEEPEST
from upx.workers.plan import Timeouts
from upx.workers.state import State

PIXELS = 65_536
LONGEST_S = 1000.0


@dataclass
class Machine:
    """A worker behind a link: seconds there and back, and for each batch; ``stalls``: batch to seconds more."""

    way: float
    each: float
    far: bool = True
    stalls: dict[int, float] = field(default_factory=dict)
    free: float = 0.0
    busy: float = 0.0
    got: list[int] = field(default_factory=list)

    def ends(self, batch: int, now: float) -> float:
        """When the result of a batch that is sent now is here."""
        takes = self.each + self.stalls.get(batch, 0.0)
        self.free = max(self.free, now + self.way / 2) + takes
        self.busy += takes
        self.got.append(batch)
        return self.free + self.way / 2


class World:
    """So many batches for these machines; ``run`` answers each, and returns the seconds that all took."""

    def __init__(self, *machines: Machine) -> None:
        self.machines = machines
        self.state = State(limit=len(machines), varied=True, timeouts=Timeouts())
        self.now, self.count, self.done, self.deepest = 0.0, 0, 0, 0
        self.order: list[tuple[float, int, Any]] = []
        self.submit(len(machines))
        for number, machine in enumerate(machines):
            self.say(hap.Serving(self.now, number, 64, 1 << 40, machine.far))
        self.answer(len(machines))

    def say(self, happening: hap.Happening) -> None:
        self.state, actions = step(self.state, happening)
        for action in actions:
            if isinstance(action, act.SendBatch):
                ends = self.machines[action.worker].ends(action.batch.id, self.now)
                answer = (action.worker, action.batch.id, action.batch.attempt, 0, "x", 1)
                heapq.heappush(self.order, (ends, self.count, answer))
                self.count += 1
            elif isinstance(action, act.Deliver):
                self.done += 1
            elif isinstance(action, act.SendPing):
                self.say(hap.Ponged(self.now, action.worker, 1, self.done))

    def submit(self, batches: int) -> None:
        for tile in range(batches):
            self.say(hap.Submitted(self.now, 1, (tile,), 1, PIXELS))

    def answer(self, batches: int) -> None:
        """Let time pass until so many are done."""
        self.done, tick = 0, self.now
        while self.done < batches:
            tick += 0.2
            assert tick < LONGEST_S
            while self.order and self.order[0][0] <= tick and self.done < batches:
                self.now, _, answer = heapq.heappop(self.order)
                self.say(hap.TileDone(self.now, *answer))
                self.deepest = max(self.deepest, *(worker.depth for worker in self.state.workers.values()))
            if self.done < batches:
                self.now = tick
                self.say(hap.Tick(tick))

    def run(self, batches: int) -> float:
        begin = self.now
        self.submit(batches)
        self.answer(batches)
        return self.now - begin


@pytest.mark.parametrize(("way", "each"), [(0.002, 0.05), (0.1, 0.067), (0.17, 0.05), (0.3, 0.05), (0.08, 1.0)])
def test_a_worker_far_away_is_never_idle_whatever_the_way(way: float, each: float) -> None:
    machine = Machine(way, each)
    took = World(machine).run(100)
    assert took < 1.1 * (100 * each + way)


def test_a_worker_near_by_has_two_batches_and_no_more() -> None:
    for machine in (Machine(0.002, 0.05), Machine(0.08, 1.0), Machine(0.0, 0.05, far=False)):
        world = World(machine)
        world.run(50)
        assert world.deepest == 2


def test_no_way_is_too_long_for_a_limit() -> None:
    world = World(Machine(10.0, 0.001))
    world.run(200)
    assert world.deepest == DEEPEST


def test_a_slow_first_batch_is_forgotten() -> None:
    world = World(Machine(0.002, 0.05, stalls={1: 5.0}))
    world.run(50)
    assert world.state.workers[0].depth == 2


def test_a_longer_way_is_learned_with_the_next_job() -> None:
    machine = Machine(0.01, 0.05)
    world = World(machine)
    world.run(50)
    machine.way = 0.3
    world.run(50)
    took = world.run(100)
    assert took < 1.1 * (100 * 0.05 + 0.3)


def test_three_workers_far_away_take_a_third_of_the_time() -> None:
    one = World(Machine(0.1, 0.25)).run(144)
    three = World(*(Machine(0.1, 0.25) for _ in range(3))).run(144)
    assert one / three > 0.95 * 3


def test_quick_and_slow_end_together() -> None:
    quick, slow = Machine(0.02, 0.1), Machine(0.02, 0.5)
    world = World(quick, slow)
    world.run(6)
    took = world.run(60)
    assert took < 1.1 * 60 / (1 / 0.1 + 1 / 0.5)
    assert len(slow.got) > 6


def test_the_last_batch_of_a_slow_worker_is_computed_by_an_idle_one() -> None:
    quick, slow = Machine(0.02, 0.1), Machine(0.02, 5.0)
    world = World(quick, slow)
    world.run(60)
    assert world.run(11) < 2.0


def test_what_a_stopped_worker_has_is_computed_by_the_others() -> None:
    world = World(Machine(0.02, 0.1), Machine(0.02, 0.1))
    world.run(20)
    world.machines[1].stalls = dict.fromkeys(range(1000), 1000.0)
    assert world.run(20) < 6.0


def test_workers_as_quick_as_one_another_compute_nothing_twice() -> None:
    world = World(*(Machine(0.05, 0.25) for _ in range(3)))
    world.run(30)
    before = sum(len(machine.got) for machine in world.machines)
    world.run(30)
    assert sum(len(machine.got) for machine in world.machines) - before == 30
