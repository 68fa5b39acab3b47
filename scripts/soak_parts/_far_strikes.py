"""The faults of the far soak: each is a block that begins with the blow and ends with whatever undoes it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from _far_boxes import awaited
from _far_releases import NEWER, OLDER, STRANGE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from _far_boxes import FarBox
    from _far_jobs import Job

LOSS = 0.3
TOWARDS = ("both", "both", "box", "host")
CHANGED_S = 40.0


@dataclass(frozen=True)
class Scene:
    """What a fault can reach: the job, its host's process, and the boxes that are struck."""

    job: Job
    host: subprocess.Popen[bytes]
    struck: Sequence[FarBox]

    @property
    def box(self) -> FarBox:
        """The one, where a fault is for one."""
        return self.struck[0]


@contextmanager
def kill_worker(scene: Scene) -> Generator[None]:
    os.kill(scene.box.worker, signal.SIGKILL)
    yield


@contextmanager
def stop_worker(scene: Scene) -> Generator[None]:
    pid = scene.box.worker
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def kill_host(scene: Scene) -> Generator[None]:
    scene.host.kill()
    yield


@contextmanager
def stop_host(scene: Scene) -> Generator[None]:
    scene.host.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scene.host.send_signal(signal.SIGCONT)


@contextmanager
def cut(scene: Scene) -> Generator[None]:
    """Mostly both ways; in one direction alone a connection dies no less."""
    for box in scene.struck:
        box.place.link.cut(TOWARDS[scene.job.seed % len(TOWARDS)])
    try:
        yield
    finally:
        for box in scene.struck:
            box.place.link.heal()


@contextmanager
def loss(scene: Scene) -> Generator[None]:
    for number, box in enumerate(scene.struck):
        box.place.link.shape(loss=LOSS, seed=scene.job.seed + number)
    try:
        yield
    finally:
        for box in scene.struck:
            box.place.link.shape()


@contextmanager
def compatible(scene: Scene) -> Generator[None]:
    scene.box.update(NEWER if scene.job.seed % 2 else OLDER, scene.job.how)
    try:
        yield
    finally:
        scene.box.back_to_ours()


@contextmanager
def incompatible(scene: Scene) -> Generator[None]:
    build = scene.box.entry["build"]
    scene.box.update(STRANGE, scene.job.how)
    try:
        yield
        # A job that ends early must not spare the box its other release.
        awaited(lambda: scene.box.entry.get("build", build) != build, CHANGED_S, f"{scene.box.name} has changed")
    finally:
        scene.box.back_to_ours()


STRIKES: dict[str, Callable[[Scene], AbstractContextManager[None]]] = {
    "kill-worker": kill_worker, "stop-worker": stop_worker, "kill-host": kill_host, "stop-host": stop_host,
    "cut-healed": cut, "cut": cut, "cut-alone": cut, "loss": loss, "compatible": compatible,
    "incompatible": incompatible, "incompatible-alone": incompatible,
}  # fmt: skip
