"""Boxes at the end of long, slow, lossy and broken links: the same picture, and nothing of it to be read on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from box_kit import await_busy
from PIL import Image

from upx.config import Settings
from upx.remote.boxes import Book
from upx.remote.boxes import Box as Known
from upx.remote.keys import KeyRing, z85

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = np.random.default_rng(11).integers(0, 256, (192, 256, 3), np.uint8)
ENLARGED = PICTURE.repeat(4, axis=0).repeat(4, axis=1)
NAMES = ("attic", "cellar")
PORT = 7600


class Far:
    """Both boxes of a lab serving, and a client at the host's end that knows them."""

    def __init__(self, lab, folder: Path, upx_env: dict[str, str], venvs: Path) -> None:
        self.lab, self._folder, self._env = lab, folder, upx_env
        self.client = self._settings("laptop")
        self.keys = KeyRing(self.client)
        self.rings = [KeyRing(self._settings(name)) for name in NAMES]
        self.serving: list[subprocess.Popen] = []
        for name, ring, box in zip(NAMES, self.rings, lab.boxes, strict=True):
            data = folder / name / "data"
            data.mkdir(parents=True, exist_ok=True)
            (data / "venvs").symlink_to(venvs, target_is_directory=True)
            ring.allow("laptop", self.keys.public("client"))
            Book(self.client).add(Known(name, f"tcp://{box.address}:{PORT}", ring.public("server"), "nearest"))
            self.serving.append(self._serve(name, box))
        Image.fromarray(PICTURE).save(folder / "in.png")

    def _settings(self, name: str) -> Settings:
        return Settings.from_env({**self._env, "UPX_HOME": str(self._folder / name)})

    def _serve(self, name: str, box) -> subprocess.Popen:
        words = [sys.executable, "-m", "upx", "worker", "serve", "nearest", "--listen", f"tcp://0.0.0.0:{PORT}"]
        said = self._folder / f"{name}.log"
        with said.open("wb") as log:
            env = {**self._env, "UPX_HOME": str(self._folder / name)}
            process = box.popen([*words, "--name", name], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 20
        while "serves nearest" not in said.read_text():
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.02)
        return process

    def up(self, *words: str) -> subprocess.Popen:
        """A job on both boxes."""
        command = [sys.executable, "-m", "upx", "up", str(self._folder / "in.png"), "-b", "nearest", "-t", "64"]
        env = {**self._env, "UPX_HOME": str(self._folder / "laptop")}
        return self.lab.host_popen(
            [*command, "--json", "--on", ",".join(NAMES), *words], env=env, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def await_busy(self) -> None:
        """Return when the first box computes, so that what comes next comes midway."""
        await_busy(self._settings(NAMES[0]))

    def record(self, job: subprocess.Popen, seconds: float) -> dict:
        out, err = job.communicate(timeout=seconds)
        assert job.returncode == 0, out + err
        return json.loads(out.splitlines()[0])

    def done(self, job: subprocess.Popen, seconds: float) -> None:
        assert np.array_equal(np.asarray(Image.open(self.record(job, seconds)["output"])), ENLARGED)

    def close(self) -> None:
        for process in self.serving:
            process.terminate()
        for process in self.serving:
            process.wait(15)


@pytest.fixture
def far(lab, tmp_path, upx_env, venvs):
    made = Far(lab, tmp_path, upx_env, venvs)
    yield made
    made.close()


def test_a_picture_comes_back_equal_over_a_long_lossy_link_and_no_pixel_or_secret_is_seen_on_it(far, tmp_path) -> None:
    from link import FAR

    for box in far.lab.boxes:
        box.link.become(FAR)
    wire = tmp_path / "wire.pcap"
    with far.lab.capture(wire) as capture:
        far.done(far.up(), 60)
    assert capture.dropped == 0
    seen = wire.read_bytes()
    # All of it passed: nothing is compressed, and every tile came back sixteen times as large.
    assert len(seen) > ENLARGED.nbytes
    rows = [PICTURE[row, column : column + 8].tobytes() for row in range(0, 192, 3) for column in range(0, 240, 16)]
    assert not any(row in seen for row in rows)
    assert not any(row.repeat(4, axis=0).tobytes() in seen for row in PICTURE[:, 16:20])
    secrets = [far.keys.client().secret]
    secrets += [json.loads((ring.folder / "server.json").read_text())["secret"] for ring in far.rings]
    for text in [*secrets, *(z85(ring.public("server")) for ring in far.rings), "nearest-x4", "Upscale", "load_id"]:
        assert text.encode() not in seen


def test_a_slow_link_carries_fewer_bytes_than_the_picture_has(far, tmp_path) -> None:
    from link import Shape

    for box in far.lab.boxes:
        box.link.become(Shape(rate=5e6, delay=0.005, loss=0.0, seed=7))
    y, x = np.mgrid[0:512, 0:512]
    waves = 127 + 100 * np.sin(x / 17)[..., None] * np.cos(y / 23 + np.arange(3).reshape(3, 1, 1)).transpose(1, 2, 0)
    smooth = waves.astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "in.png")
    wire = tmp_path / "wire.pcap"
    with far.lab.capture(wire) as capture:
        record = far.record(far.up("-t", "64"), 120)
    assert capture.dropped == 0
    enlarged = smooth.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(np.asarray(Image.open(record["output"])), enlarged)
    assert wire.stat().st_size < 0.7 * enlarged.nbytes


def test_a_cable_that_is_pulled_for_a_while_costs_time_and_no_tile(far) -> None:
    job = far.up("--set", "delay=0.15")
    far.await_busy()
    for box in far.lab.boxes:
        box.link.cut()
    time.sleep(3.0)
    for box in far.lab.boxes:
        box.link.heal()
    far.done(job, 90)


def test_a_link_that_is_cut_for_good_leaves_its_tiles_to_the_other_box(far) -> None:
    job = far.up("--set", "delay=0.1")
    far.await_busy()
    far.lab.boxes[0].link.cut()
    far.done(job, 60)


def test_three_packets_of_ten_are_lost_and_no_tile_is(far) -> None:
    from link import Shape

    for box in far.lab.boxes:
        box.link.become(Shape(rate=1e9, delay=0.001, loss=0.3, seed=7))
    far.done(far.up(), 150)
