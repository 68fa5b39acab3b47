"""The host's side of the ring: what is lent, to whom, until when; then through real workers that live and die."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_host_death import host
from worker_kit import QUICK, colour, enlarged, gone_within, noise, until

from upx.workers import events, sharing
from upx.workers import ring as rings
from upx.workers.ring import HostRing, size_for
from upx.workers.slots import Slots
from upx_protocol.arrays import view
from upx_protocol.messages import Buffer
from upx_protocol.ring import UNIT, attach, supported, units_of

pytestmark = pytest.mark.skipif(not supported(), reason="no memory without a name")
TILE = noise(1, 8)
MEGABYTE = 1 << 20


class SlotsMachine(RuleBasedStateMachine):
    """Against a plain list of who has which unit."""

    UNITS = 40

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(self.UNITS)
        self.owner: list[int | None] = [None] * self.UNITS

    @rule(units=st.integers(1, 12))
    def take(self, units: int) -> None:
        fits = [s for s in range(self.UNITS - units + 1) if self.owner[s : s + units] == [None] * units]
        start = self.slots.take(units)
        assert start == (fits[0] if fits else None), "the lowest run that is long enough"
        if start is not None:
            self.owner[start : start + units] = [start] * units

    @precondition(lambda self: any(owner is not None for owner in self.owner))
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(sorted({owner for owner in self.owner if owner is not None})))
        self.slots.give(start)
        self.owner = [None if owner == start else owner for owner in self.owner]

    @rule(start=st.integers(0, UNITS - 1))
    def what_is_nobodys_cannot_be_given_back(self, start: int) -> None:
        if self.owner[start] != start:
            with pytest.raises(KeyError):
                self.slots.give(start)

    @invariant()
    def free_runs_are_those_without_an_owner_and_never_side_by_side(self) -> None:
        free = [unit for start, units in self.slots.free for unit in range(start, start + units)]
        assert free == [unit for unit, owner in enumerate(self.owner) if owner is None]
        ends = {start + units for start, units in self.slots.free}
        assert not ends & {start for start, _ in self.slots.free}
        assert self.slots.idle == (len(free) == self.UNITS)


TestSlots = SlotsMachine.TestCase
TestSlots.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)


# ------------------------------------------------------------------ lending


@pytest.fixture
def ring():
    made = HostRing(MEGABYTE)
    offer = made.offer(1)
    there = attach(offer)
    made.confirm(1, ok=True)
    made.there = there
    yield made
    del made.there, there
    made.__dict__.clear()  # a mapping holds a descriptor


def lend(ring: HostRing, number: int, *tiles: np.ndarray):
    return ring.lend((number, 0), tiles, scale=4, out_dtype="uint8", now=0.0)


def test_the_worker_finds_the_tiles_and_the_host_what_was_written(ring) -> None:
    loan = lend(ring, 1, TILE, TILE + 1)
    assert np.array_equal(ring.there.read(loan.bufs[1]), TILE + 1)
    for index, out in enumerate(loan.outs):
        ring.there.room(out)[:] = index + 5
        assert (view(out, ring.answer((1, 0), index, out)) == index + 5).all()
    assert ring.tile((1, 0), 0) is None


def test_no_slot_is_lent_again_while_a_view_of_it_is_held_anywhere(ring) -> None:
    held = {}
    for number in range(8):
        loan = lend(ring, number, TILE)
        ring.there.room(loan.outs[0])[:] = number
        array = view(loan.outs[0], ring.answer((number, 0), 0, loan.outs[0]))
        held[loan.outs[0].slot] = (number, array[3:5, ::2])
        del array
    assert len(held) == 8
    for number, piece in held.values():
        assert (piece == number).all()
    free = len(ring._slots.free)
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    del piece
    loan = lend(ring, 100, TILE)
    assert loan.bufs[0].slot == 0, "all of it is free again, from the bottom"
    assert len(ring._slots.free) <= free


def test_every_generation_is_new_and_stamped(ring) -> None:
    seen = []
    for number in range(5):
        loan = lend(ring, number, TILE)
        seen += [buffer.gen for buffer in (*loan.bufs, *loan.outs)]
        assert all(ring.there.stamped(buffer) for buffer in (*loan.bufs, *loan.outs))
        ring.end((number, 0))
        assert not any(ring.there.stamped(buffer) for buffer in (*loan.bufs, *loan.outs))
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("change", [{"slot": 0}, {"gen": 99}, {"nbytes": 1}, {"shape": (1, 1, 3)}, {"loc": "inline"}])
def test_an_answer_that_names_another_slot_is_no_answer(ring, change) -> None:
    loan = lend(ring, 1, TILE)
    assert ring.answer((1, 0), 0, replace(loan.outs[0], **change)) is None
    assert ring.answer((1, 0), 0, loan.outs[0]) is not None


def test_a_second_answer_and_one_of_another_attempt_find_nothing(ring) -> None:
    loan = lend(ring, 1, TILE, TILE)
    data = ring.answer((1, 0), 0, loan.outs[0])
    assert ring.tile((1, 0), 0) is None
    assert ring.tile((1, 1), 1) is None
    assert ring.tile((2, 0), 1) is None
    assert ring.tile((1, 0), 1) == loan.bufs[1]
    ring.end((1, 0))
    assert ring.tile((1, 0), 1) is None
    assert data is not None


def test_a_batch_that_the_worker_begins_is_told_once(ring) -> None:
    first, second = lend(ring, 1, TILE, TILE), lend(ring, 2, TILE)
    assert ring.begun() == []
    ring.there.begin(first.bufs[0])
    assert ring.begun() == [(1, 0)]
    ring.there.begin(second.bufs[0])
    assert ring.begun() == [(2, 0)]
    assert ring.begun() == []
    ring.end((1, 0))
    lend(ring, 3, TILE, TILE)
    assert ring.begun() == [], "the slot that was begun is another batch's now"


def test_what_has_no_room_is_not_lent_and_leaves_nothing_taken(ring) -> None:
    tile = np.zeros((128, 128, 3), np.uint8)
    assert lend(ring, 1, tile) is not None
    assert lend(ring, 2, tile) is None
    ring.end((1, 0))
    assert ring._slots.idle


def test_dtypes_that_no_wire_knows_are_left_to_the_worker_to_refuse(ring, open_pool, plan) -> None:
    assert lend(ring, 1, TILE.astype(np.float64)) is None
    assert ring.lend((1, 0), [TILE], scale=4, out_dtype="int7", now=0.0) is None
    eyes = open_pool(plan)
    assert isinstance(eyes.submit(TILE, out_dtype="int7")[0].exception(30), Exception)
    assert np.array_equal(eyes.up(TILE)[0], enlarged(TILE))


def test_nothing_is_lent_before_the_worker_has_confirmed_nor_after_it_has_refused() -> None:
    for ok in (None, False):
        ring = HostRing(MEGABYTE)
        ring.offer(4)
        if ok is not None:
            ring.confirm(4, ok=ok)
        ring.confirm(5, ok=True)
        assert lend(ring, 1, TILE) is None
        ring.close()


def test_idle_memory_is_given_back_but_not_what_is_read(ring) -> None:
    def resident() -> int:
        return fd.stat().st_blocks * 512

    links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]  # noqa: PTH208  it lists itself
    fd = next(link for link in links if link.exists() and "upx-ring" in str(link.readlink()))
    loan = lend(ring, 1, noise(1, 64))
    ring.there.room(loan.outs[0])[:] = 7
    array = view(loan.outs[0], ring.answer((1, 0), 0, loan.outs[0]))
    full = resident()
    ring.trim(0.5)
    assert resident() == full
    ring.trim(10.0)
    assert 0 < resident() < full
    assert (array == 7).all()
    del array
    ring.trim(20.0)
    assert resident() == 0
    assert lend(ring, 2, TILE) is not None


def test_the_size_follows_the_machine() -> None:
    assert size_for(0) == size_for(1 << 40) == rings.SIZE
    assert size_for(1 << 30) == (1 << 30) // rings.SHARE_OF_MEMORY
    assert size_for(64 << 20) == 0
    assert size_for((1 << 30) + 4097) % UNIT == 0
    assert units_of(UNIT - 64) == 1
    assert units_of(UNIT - 63) == 2


# ------------------------------------------------------------------ through real workers


def in_dev_shm() -> list[str]:
    return sorted(path.name for path in Path("/dev/shm").iterdir())  # noqa: S108  it is looked at, not used


def maps_ring(pid: int) -> bool:
    return "upx-ring" in Path(f"/proc/{pid}/maps").read_text()


def uses_ring(eyes) -> bool:
    talks = [link.talk for link in eyes.links()]
    return all(talk is not None and talk.shared.ring is not None and talk.shared.ring.usable for talk in talks)


def idle(eyes) -> bool:
    """Whether every slot is free, once everybody has let go."""
    gc.collect()
    (link,) = eyes.links()
    link.talk.shared.ring._collect()
    return link.talk.shared.ring._slots.idle


@pytest.mark.parametrize("share", [True, False])
def test_results_are_the_same_in_the_ring_and_without_it(open_pool, plan, share) -> None:
    eyes = open_pool(plan, share=share)
    eyes.pool.ready(30)
    tiles = [noise(seed, 64) for seed in range(12)]
    futures = [eyes.submit(*tiles[start : start + 3]) for start in range(0, 12, 3)]
    for tile, future in zip(tiles, [f for group in futures for f in group], strict=True):
        assert np.array_equal(future.result(30).array, enlarged(tile))
    assert uses_ring(eyes) == share


def test_results_that_nobody_lets_go_make_the_next_ones_travel(open_pool, plan, monkeypatch) -> None:
    monkeypatch.setattr(rings, "SIZE", 16 << 20)
    eyes = open_pool(plan)
    held = [eyes.submit(noise(seed, 256))[0].result(30) for seed in range(9)]
    assert uses_ring(eyes)
    for seed, result in enumerate(held):
        assert np.array_equal(result.array, enlarged(noise(seed, 256)))
        result.release()
        assert result.array.size == 0
    assert any(idle(eyes) for _ in until(2))


def test_a_worker_that_is_killed_leaves_nothing_and_its_tiles_are_had_from_another(open_pool, plan) -> None:
    before = in_dev_shm()
    eyes = open_pool(plan)
    tiles = [noise(seed) for seed in range(6)]
    futures = [eyes.submit(tile, delay=0.15)[0] for tile in tiles]
    os.kill(eyes.in_flight(), signal.SIGKILL)
    for tile, future in zip(tiles, futures, strict=True):
        assert np.array_equal(future.result(30).array, enlarged(tile))
    assert eyes.of(events.TileRequeued)
    assert uses_ring(eyes)
    assert in_dev_shm() == before


def test_tiles_that_fail_or_are_cancelled_give_their_slots_back(open_pool, plan) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    bad, good = noise(1), noise(2)
    (failed,) = eyes.submit(bad, fail_on=colour(bad))
    assert failed.exception(30) is not None
    slow = eyes.submit(good, job=7, delay=0.3)
    waiting = eyes.submit(good, job=7, delay=0.3)
    eyes.in_flight()
    eyes.pool.cancel(7)
    assert np.array_equal(eyes.up(good)[0], enlarged(good))
    assert all(future.exception(5) is not None for future in (*slow, *waiting))
    del failed, slow, waiting
    assert any(idle(eyes) for _ in until(3))


def test_among_kills_cancelled_jobs_and_results_that_are_kept_every_pixel_is_right(
    open_pool, plan, monkeypatch
) -> None:
    monkeypatch.setattr(rings, "SIZE", 16 << 20)
    eyes = open_pool(plan, workers=2, timeouts=replace(QUICK, busy=20.0, busy_first=20.0, deaths=50))
    eyes.pool.ready(30)
    rng, kept, flying = random.Random(7), [], []
    for job in range(400):
        tile = noise(job, rng.choice((8, 64, 200)))
        flying.append((job, tile, eyes.submit(tile, tile + 1, job=job, delay=rng.choice((0, 0, 0.005)))))
        if job % 130 == 100:
            os.kill(rng.choice(eyes.pids()), signal.SIGKILL)
        if job % 17 == 0:
            eyes.pool.cancel(job)
        while len(flying) > (8 if job < 399 else 0):
            number, sent, futures = flying.pop(0)
            for extra, future in enumerate(futures):
                if number % 17 == 0 and future.exception(30) is not None:
                    continue
                result = future.result(30)
                assert np.array_equal(result.array, enlarged(sent + extra))
                kept.append((sent + extra, result.array[1:]))
                result.release()
            while len(kept) > rng.randrange(12):
                was, piece = kept.pop(rng.randrange(len(kept)))
                assert np.array_equal(piece, enlarged(was)[1:])


def test_a_pool_that_is_closed_leaves_results_readable(open_pool, plan) -> None:
    eyes = open_pool(plan)
    (result,) = [future.result(30) for future in eyes.submit(noise(3, 64))]
    eyes.pool.close()
    assert np.array_equal(result.array, enlarged(noise(3, 64)))


def test_a_worker_that_complains_gets_its_tiles_inline(open_pool, plan, caplog) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    assert any(uses_ring(eyes) for _ in until(5))
    rings.say_inline.cache_clear()
    with caplog.at_level(logging.INFO, "upx.workers"):
        eyes.up(noise(1))
        # A host that is wrong about its own generations.
        eyes.links()[0].talk.shared.ring._gen = 0
        assert np.array_equal(eyes.up(noise(2))[0], enlarged(noise(2)))
    assert not uses_ring(eyes)
    assert caplog.text.count("tiles travel through the socket: ring: ") == 1


def test_memory_that_cannot_be_had_is_said_once_and_tiles_travel(open_pool, plan, caplog, monkeypatch) -> None:
    def refuse(_size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rings, "create", refuse)
    rings.say_inline.cache_clear()
    with caplog.at_level(logging.INFO, "upx.workers"):
        eyes = open_pool(plan, workers=2)
        futures = [eyes.submit(noise(seed), delay=0.05)[0] for seed in range(6)]
        for seed, future in enumerate(futures):
            assert np.array_equal(future.result(30).array, enlarged(noise(seed)))
    assert caplog.text.count("No space left on device") == 1


LIMITED = """
import resource, signal
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
"""
ONE_TILE = """
(future,) = pool.submit([TILE], out_dtype="uint8", job=1)
print(future.result(30).array.shape, list(pool._supervisor._links.values())[0].talk.shared.ring, flush=True)
"""


def test_a_system_that_allows_no_file_of_that_size_is_no_hindrance(settings, monkeypatch) -> None:
    import test_host_death

    script = test_host_death.SCRIPT.replace("staged = stage(", LIMITED + "staged = stage(")
    monkeypatch.setattr(test_host_death, "SCRIPT", script)
    with host(settings, 0, ONE_TILE) as process:
        assert process.communicate(timeout=60)[0].strip() == "(32, 32, 3) None"


TINY = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'


def test_a_small_dev_shm_is_no_limit(settings) -> None:
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)  # noqa: S607
    if probe.returncode:
        pytest.skip("no mount namespace without root")
    import test_host_death

    environ = {**os.environ, "UPX_HOME": str(settings.state_dir.parent)}
    then = ONE_TILE.replace("[TILE]", "[np.zeros((512, 512, 3), np.uint8)]").replace(
        "shared.ring,", "shared.ring.usable,"
    )
    script = test_host_death.SCRIPT + then
    python = [sys.executable, "-c", script, str(test_host_death.NEAREST), "0"]
    command = ["unshare", "-m", "sh", "-c", TINY, "sh", *python]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "(2048, 2048, 3) True", done.stderr


def test_a_host_that_is_killed_leaves_nothing(settings) -> None:
    before = in_dev_shm()
    then = ONE_TILE + "print(pid, flush=True)\ntime.sleep(60)"
    with host(settings, 60, then) as process:
        process.stdout.readline()
        pid = int(process.stdout.readline())
        assert maps_ring(pid)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert in_dev_shm() == before
    # A detached worker lives on, and lets the memory go with the silent session.
    assert any(not maps_ring(pid) for _ in until(10, step=0.1))
    os.kill(pid, signal.SIGKILL)
    assert gone_within(pid, 2)


# ------------------------------------------------------------------ the pipes beside it


def channels(eyes) -> list:
    return [link._channel for link in eyes.links()]


def pipes(pid: int) -> int:
    """Ends of pipes that a process holds."""
    links = [Path(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208  it lists itself
    return sum(link.is_fifo() for link in links if link.exists())


def test_a_batch_in_the_ring_goes_and_comes_through_a_pipe(open_pool, plan, monkeypatch) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    eyes.up(noise(1))
    (channel,) = channels(eyes)
    assert channel.pipe is not None
    sent, heard = [], []
    monkeypatch.setattr(channel._socket, "send", lambda *parts: sent.append(parts))
    monkeypatch.setattr(channel.pipe, "receive", lambda whole=channel.pipe.receive: heard.append(whole()) or heard[-1])
    for seed in range(5):
        assert np.array_equal(eyes.up(noise(seed))[0], enlarged(noise(seed)))
    assert sum(map(len, heard)) == 5
    assert not any(b"Upscale" in bytes(part) for parts in sent for part in parts if isinstance(part, bytes))


def test_once_a_pipe_is_full_batches_go_through_the_socket_in_order_and_answers_still_come(
    open_pool, plan, monkeypatch
) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    eyes.up(noise(1))
    (channel,) = channels(eyes)
    asked = []
    monkeypatch.setattr(channel.pipe, "send", lambda header: asked.append(header) and False)
    for seed in range(5):
        assert np.array_equal(eyes.up(noise(seed))[0], enlarged(noise(seed)))
    assert len(asked) == 1, "each generation has to come after the one before"
    assert channel.pipe is not None
    assert uses_ring(eyes)


def test_a_pipe_that_ends_is_closed_and_the_socket_serves_on(open_pool, plan) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    eyes.up(noise(1))
    (channel,) = channels(eyes)
    os.write(channel.pipe._writer, b"\xff\xff")
    assert any(channel.pipe is None for _ in until(5))
    assert np.array_equal(eyes.up(noise(2))[0], enlarged(noise(2)))
    assert uses_ring(eyes)


def test_pipes_end_with_their_workers_and_pools(open_pool, plan) -> None:
    gc.collect()
    before, held = pipes(os.getpid()), []
    eyes = open_pool(plan, timeouts=replace(QUICK, deaths=50))
    for number in range(4):
        assert np.array_equal(eyes.up(noise(number))[0], enlarged(noise(number)))
        assert any(channel is not None and channel.pipe is not None for channel in channels(eyes))
        assert pipes(eyes.pids()[0]) >= 2
        held.append(pipes(os.getpid()))
        os.kill(eyes.pids()[0], signal.SIGKILL)
    assert len(set(held)) == 1, "the same number with each worker"
    eyes.pool.close()
    assert pipes(os.getpid()) == before


def test_pipes_that_cannot_be_had_are_no_hindrance(open_pool, plan, monkeypatch) -> None:
    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(sharing, "create", refuse)
    eyes = open_pool(plan)
    assert np.array_equal(eyes.up(noise(1))[0], enlarged(noise(1)))
    assert uses_ring(eyes)
    assert channels(eyes)[0].pipe is None


def test_a_buffer_that_was_never_lent_is_passed_over(open_pool, plan) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    talk = eyes.links()[0].talk
    from upx_protocol import messages as wire
    from upx_protocol.codec import Received

    stray = wire.TileDone(1, 0, 0, (Buffer("uint8", (32, 32, 3), 3072, "shm", 0, 1),))
    assert talk.hear(Received(stray, talk._session), 0.0) == []
    assert talk.mangled == 1
    assert np.array_equal(eyes.up(TILE)[0], enlarged(TILE))
