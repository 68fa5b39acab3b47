"""What each worker is given by its pace and its way: the lifecycle's own code, on links that are simulated."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import pytest

from upx.workers import actions as act
from upx.workers import happenings as hap
from upx.workers.lifecycle import step
from upx.workers.pacing import DEEPEST
from upx.workers.packing import AGAIN
from upx.workers.plan import Timeouts
from upx.workers.state import State

PIXELS, BYTES = 65_536, 3 << 20
# How much smaller a packed result is.
SMALLER = 2.5
LONGEST_S = 1000.0


@dataclass
class Machine:
    """A worker behind a link: seconds there and back, and for each batch; ``stalls``: batch to seconds more.

    ``wire``: seconds of the link for each batch; ``packing``: of packing one, where that can be; 0: it cannot.
    """

    way: float
    each: float
    far: bool = True
    stalls: dict[int, float] = field(default_factory=dict)
    wire: float = 0.0
    packing: float = 0.0
    free: float = 0.0
    wire_free: float = 0.0
    got: list[int] = field(default_factory=list)
    packed: int = 0

    def ends(self, batch: int, now: float, *, packed: bool) -> float:
        """When the result of a batch that is sent now is here."""
        takes = self.each + self.stalls.get(batch, 0.0) + (self.packing if packed else 0.0)
        self.free = max(self.free, now + self.way / 2) + takes
        self.wire_free = max(self.wire_free, self.free) + self.wire / (SMALLER if packed else 1.0)
        self.got.append(batch)
        self.packed += packed
        return self.wire_free + self.way / 2


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
                machine = self.machines[action.worker]
                ends = machine.ends(action.batch.id, self.now, packed=action.packed)
                codec = BYTES / machine.packing if machine.packing else 0.0
                answer = (action.worker, action.batch.id, action.batch.attempt, 0, "x", 1, machine.each, BYTES, codec)
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


def test_a_workers_pace_is_the_mean_of_its_last_ones() -> None:
    world = World(Machine(0.02, 0.05, stalls={5: 0.5}))
    world.run(8)
    (worker,) = world.state.workers.values()
    assert worker.pace == fmean(worker.paces)


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


def test_a_slow_wire_carries_packed_tiles_and_is_the_quicker_for_it() -> None:
    machine = Machine(0.04, 0.02, wire=0.25, packing=0.06)
    took = World(machine).run(100)
    assert took < 0.6 * 100 * 0.25
    assert machine.packed > 80


@pytest.mark.parametrize(
    ("each", "wire", "packing"),
    [(0.5, 0.25, 0.06), (0.02, 0.03, 0.06), (0.02, 0.25, 0.0)],
    ids=["the model is slower than the wire", "the wire is quicker than the codec", "the box cannot"],
)
def test_nothing_is_packed_where_that_cannot_pay(each: float, wire: float, packing: float) -> None:
    machine = Machine(0.04, each, wire=wire, packing=packing)
    World(machine).run(60)
    assert machine.packed == 0


def test_what_turned_out_slower_is_given_up_for_a_while() -> None:
    machine = Machine(0.04, 0.18, wire=0.24, packing=0.2)
    World(machine).run(100)
    assert 0 < machine.packed < 30


def test_a_link_that_was_slow_only_at_first_is_not_packed_for_long() -> None:
    machine = Machine(0.002, 0.002, wire=0.007, packing=0.016, stalls=dict.fromkeys(range(12), 0.03))
    took = World(machine).run(288)
    assert 0 < machine.packed < 20
    assert took < 12 * 0.03 + 288 * 0.007 * 1.2


def test_a_wire_that_has_become_quick_is_noticed() -> None:
    machine = Machine(0.04, 0.02, wire=0.25, packing=0.06)
    world = World(machine)
    world.run(60)
    machine.wire = 0.01
    world.run(AGAIN)
    before = machine.packed
    world.run(60)
    assert machine.packed - before < 10
