"""``upx ps --on`` and ``upx top`` with a box that really computes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from box_kit import until
from PIL import Image

from upx.config import Settings
from upx.remote.boxes import Book, Box
from upx.remote.sights import Lookout

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")

TILE_S, TILE_MP = 0.2, 32 * 32 / 1e6


@pytest.fixture
def box(serve, attic, laptop):
    attic.keys.allow("laptop", laptop.keys.public("client"))
    made = serve()
    laptop.knows(made)
    return made


@pytest.fixture
def job(laptop, tmp_path):
    """A picture that keeps the box at work for longer than anybody looks; its tiles take a fifth of a second each."""
    Image.fromarray(np.zeros((320, 320, 3), np.uint8)).save(tmp_path / "in.png")
    words = ("up", str(tmp_path / "in.png"), "-b", "nearest", "-t", "32", "--on", "attic", "--set", f"delay={TILE_S}")
    command = [sys.executable, "-m", "upx", *words]
    with subprocess.Popen(command, env=laptop.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_ps_and_top_show_what_a_box_does_while_it_does_it(box, laptop, job) -> None:
    def at_work():
        (row,) = laptop.records("ps", "--on", "attic")
        return row["tiles"] and row

    row = until(at_work)
    assert (row["place"], row["model"], row["device"], row["hosts"]) == ("attic", "nearest-x4", "cpu", 1)
    assert row["megapixels"] == pytest.approx(row["tiles"] * TILE_MP, abs=1e-3)
    assert 0 < row["rate"] <= TILE_MP / TILE_S
    assert 0 < row["busy_seconds"] <= row["age"]
    (sample,) = laptop.records("top", "--once", "--on", "attic", "--every", "3")
    (worker,) = sample["workers"]
    assert worker["state"] == "in use"
    # A tile may have been begun before the first look.
    assert 0 < worker["tiles_per_second"] <= 1 / TILE_S + 1
    assert worker["megapixels_per_second"] == pytest.approx(worker["tiles_per_second"] * TILE_MP, rel=0.01)
    assert 0 < worker["busy"] <= 1.0
    assert sample["queue"] == worker["queue"]
    assert job.poll() is None, "it is at work still"


def test_one_connection_serves_all_looks_and_none_of_them_is_a_host(box, laptop) -> None:
    settings = Settings.from_env(laptop.env)
    with Lookout(settings, Book(settings).all(), here=True) as lookout:
        first = lookout.look()
        ports = {connection(box.child) for _ in range(5) if lookout.look()}
    (seen,) = first
    assert (seen.name, seen.backend, seen.error) == (f"attic:{box.port}", "nearest", None)
    assert seen.pong is not None
    assert seen.pong.hosts == 0
    assert len(ports) == 1
    assert len(next(iter(ports))) == 1


def connection(pid: int) -> frozenset[str]:
    """The established connections of a process, as the kernel names them."""
    sockets = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return frozenset(line[2] for line in lines if line[3] == "01" and f"socket:[{line[9]}]" in sockets)


def test_a_box_whose_worker_is_another_by_now_is_found_again(box, laptop) -> None:
    settings = Settings.from_env(laptop.env)
    with Lookout(settings, Book(settings).all(), here=False) as lookout:
        assert lookout.look()[0].pong is not None
        child = box.child
        os.kill(child, signal.SIGKILL)
        box.await_another(child)
        seen = until(lambda: (now := lookout.look(most=0.5)[0]).pong is not None and now)
    assert seen.error is None
    assert seen.pong.age_s < 20


def test_a_box_that_cannot_be_reached_is_a_line_and_does_not_hold_up_the_others(box, laptop) -> None:
    settings = Settings.from_env(laptop.env)
    gone = Box("gone", "tcp://127.0.0.1:9", "ab" * 32)
    with Lookout(settings, [gone, *Book(settings).all()], here=False) as lookout:
        away, there = lookout.look()
    assert "gone cannot be reached" in str(away.error)
    assert there.pong is not None


def test_top_of_a_machine_and_its_boxes_goes_on_when_a_box_goes(box, laptop) -> None:
    command = [sys.executable, "-m", "upx", "top", "--json", "--every", "0.2"]
    with subprocess.Popen(command, env=laptop.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        states = []
        for line in process.stdout:
            (worker,) = json.loads(line)["workers"]
            if not states:
                box.kill()
            states.append(worker["state"])
            if worker["state"] == "unreachable":
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert states[0] == "idle"
    assert (process.returncode, said) == (0, b"")
