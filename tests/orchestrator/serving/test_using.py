"""Pictures that are computed by boxes: the same bytes, whatever happens to the box."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from box_kit import SERVE, Box, Machine, has_ipv6, until
from PIL import Image

from upx.config import Settings
from upx.errors import PoisonTileError
from upx.host import Host
from upx.routes import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.workers.pool import WorkerPool

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")

PICTURE = np.random.default_rng(5).integers(0, 256, (256, 320, 3), np.uint8)
ENLARGED = PICTURE.repeat(4, axis=0).repeat(4, axis=1)


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "in.png"
    Image.fromarray(PICTURE).save(path)
    return path


@pytest.fixture
def box(serve, attic, laptop) -> Box:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    made = serve()
    laptop.knows(made)
    return made


@pytest.fixture
def cellar(venvs, upx_env, tmp_path, laptop) -> Iterator[Box]:
    """A second machine that serves, known as "cellar"."""
    data = tmp_path / "cellar" / "data"
    data.mkdir(parents=True)
    (data / "venvs").symlink_to(venvs, target_is_directory=True)
    machine = Machine(tmp_path / "cellar", upx_env)
    machine.keys.allow("laptop", laptop.keys.public("client"))
    made = Box(machine, tmp_path / "said-cellar", *SERVE[:-1], "cellar")
    laptop.knows(made)
    yield made
    made.kill()


def up(machine: Machine, picture: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "upx", "up", str(picture), "-b", "nearest", "-t", "64", "--json", *words]
    return subprocess.Popen(command, env=machine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(process: subprocess.Popen[str], seconds: float = 60.0) -> dict:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    record = json.loads(out.splitlines()[0])
    assert np.array_equal(np.asarray(Image.open(record["output"])), ENLARGED)
    return record


def test_a_box_computes_what_this_machine_would_and_needs_nothing_here(box, laptop, picture) -> None:
    record = done(up(laptop, picture, "--on", "attic"))
    assert record["tiles"] > 4
    assert not (laptop.home / "data" / "venvs").exists(), "no environment was built on the client"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_box_at_an_address_of_ipv6(serve, attic, laptop, add, picture) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    made = serve(*("tcp://[::1]:0" if word.startswith("tcp:") else word for word in SERVE))
    assert "[::1]" in made.address
    assert add(made).returncode == 0
    done(up(laptop, picture, "--on", "attic"))


def test_two_boxes_share_a_picture(box, cellar, laptop, picture, tmp_path) -> None:
    trace = tmp_path / "trace.json"
    done(up(laptop, picture, "--on", "attic,cellar", "--set", "delay=0.05", "--trace", str(trace)))
    said = trace.read_text()
    assert "attic:" in said
    assert "cellar:" in said


def test_a_box_whose_worker_is_killed_midway_costs_time_and_no_tile(box, laptop, picture) -> None:
    job, child = up(laptop, picture, "--on", "attic", "--set", "delay=0.1"), box.child
    box.await_busy()
    os.kill(child, signal.SIGKILL)
    done(job)
    assert box.child != child


def test_a_box_that_is_stopped_for_good_leaves_its_tiles_to_the_others(box, cellar, laptop, picture) -> None:
    job = up(laptop, picture, "--on", "attic,cellar", "--set", "delay=0.1")
    box.await_busy()
    box.kill()
    done(job)


def test_a_worker_that_does_not_answer_any_more_costs_no_tile(box, cellar, laptop, picture) -> None:
    job, child = up(laptop, picture, "--on", "attic,cellar", "--set", "delay=0.05"), box.child
    box.await_busy()
    os.kill(child, signal.SIGSTOP)
    try:
        done(job)
    finally:
        os.kill(child, signal.SIGCONT)


def test_a_box_that_restarts_its_worker_for_an_update_loses_no_tile(box, laptop, picture) -> None:
    job, child = up(laptop, picture, "--on", "attic", "--set", "delay=0.1"), box.child
    box.await_busy()
    box.process.send_signal(signal.SIGHUP)
    done(job)
    box.await_another(child)


def test_a_key_that_is_revoked_midway_ends_its_job_and_nobody_elses(box, attic, laptop, picture, upx_env) -> None:
    other = Machine(laptop.home.parent / "other", upx_env)
    attic.keys.allow("other", other.keys.public("client"))
    key = attic.keys.public("server")
    until(lambda: other.upx("worker", "add", "attic", box.address, "--key", key).returncode == 0)
    theirs = up(other, picture, "--on", "attic", "--set", "delay=0.1", "-o", str(other.home / "theirs.png"))
    mine = up(laptop, picture, "--on", "attic", "--set", "delay=0.1")
    box.await_busy()
    attic.keys.revoke("laptop")
    out, err = mine.communicate(timeout=30)
    assert mine.returncode == 7, out + err
    assert "revoked" in err or "does not let this machine in" in err
    assert not picture.with_name("in_4x_nearest-x4.png").exists()
    done(theirs)


def test_what_cannot_be_reached_is_said_soon_and_any_goes_on_without_it(laptop, upx_env, venvs, picture) -> None:
    nobody = "tcp://127.0.0.1:9"
    assert laptop.upx("worker", "add", "gone", nobody, "--key", "ab" * 32, "--offline").returncode == 0
    began = time.monotonic()
    job = up(laptop, picture, "--on", "gone")
    out, err = job.communicate(timeout=90)
    assert job.returncode == 7, out + err
    assert "gone cannot be reached" in err
    assert time.monotonic() - began < 40
    (laptop.home / "data").mkdir(exist_ok=True)
    (laptop.home / "data" / "venvs").symlink_to(venvs, target_is_directory=True)
    done(up(laptop, picture, "--on", "any", "--keep-alive", "0"))


def test_unknown_boxes_and_other_backends_are_refused_before_anything_is_done(box, laptop, picture) -> None:
    for words, said in ((("--on", "attik"), "no box is called"), (("--on", ","), "names no place")):
        job = up(laptop, picture, *words)
        _, err = job.communicate(timeout=30)
        assert job.returncode == 2, err
        assert said in err
    ended = laptop.upx("up", picture, "-b", "span", "--on", "attic")
    assert ended.returncode == 2
    assert "attic serves nearest, not span" in ended.stderr


def test_a_host_of_another_machine_cannot_name_files_of_the_box(box, laptop, picture, tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    job = up(laptop, picture, "--on", "attic", "--set", f"crash_once_file={victim}")
    out, err = job.communicate(timeout=60)
    assert job.returncode != 0, out
    assert "not for hosts of other machines" in err
    assert victim.read_text() == "keep me"


def test_a_tile_that_ends_the_workers_of_a_box_fails_alone(box, laptop) -> None:
    small, large = (np.full((side, side, 3), side, np.uint8) for side in (16, 32))
    with Host(Settings.from_env(laptop.env)) as host:
        pool = host.open(Request(backend="nearest", on=("attic",))).start()
        pool.ready(30)
        tiles = [small, large, small, small]
        params = {"crash_above": 20, "delay": 0.05}
        futures = [pool.submit([tile], out_dtype="uint8", job=1, params=params)[0] for tile in tiles]
        assert isinstance(futures[1].exception(60), PoisonTileError)
        for future in futures[:1] + futures[2:]:
            assert np.array_equal(future.result(60).array, small.repeat(4, 0).repeat(4, 1))


def test_ten_hosts_share_one_worker_fairly(box, laptop) -> None:
    settings = Settings.from_env(laptop.env)
    tile, begin, ends = np.zeros((16, 16, 3), np.uint8), threading.Barrier(10), [0.0]
    served = [0] * 10

    def host(number: int, pool: WorkerPool) -> None:
        begin.wait(30)
        ends[0] = ends[0] or time.monotonic() + 4.0
        waiting = [pool.submit([tile], out_dtype="uint8", job=1, params={"delay": 0.005})[0] for _ in range(2)]
        while time.monotonic() < ends[0]:
            waiting.pop(0).result(30)
            served[number] += 1
            waiting += pool.submit([tile], out_dtype="uint8", job=1, params={"delay": 0.005})

    with ExitStack() as stack, ThreadPoolExecutor(10) as threads:
        hosts = [stack.enter_context(Host(settings)) for _ in range(10)]
        pools = [each.open(Request(backend="nearest", on=("attic",))).start() for each in hosts]
        for pool in pools:
            pool.ready(30)
        for done_one in [threads.submit(host, number, pool) for number, pool in enumerate(pools)]:
            done_one.result(60)
    assert min(served) > 10
    assert max(served) / min(served) <= 1.5, served
