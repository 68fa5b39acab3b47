"""What happens to hosts, boxes and links during the churn, and which errors that excuses.

Each event takes a few seconds, leaves the world as it was, and says what went wrong, or nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from _churn_figures import children
from _churn_pictures import enlarged
from _processes import heard
from PIL import Image

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _churn_world import LongLived, Serving, World

COMMAND_S = 180.0
NOT_ALLOWED, UNREACHED = "does not let this machine in", 7
# Decks between two in which the cellar's processes are replaced too: it is the box whose worker grows old.
SPARED = 8


@dataclass
class Scene:
    """Where an event takes place: ``box`` is the one that it strikes."""

    world: World
    host: LongLived
    box: Serving
    rng: random.Random


def strike(scene: Scene) -> str:
    """A box's worker is killed."""
    scene.box.strike()
    return ""


def renew(scene: Scene) -> str:
    """SIGHUP."""
    scene.box.renew()
    return ""


def drain(scene: Scene) -> str:
    """A box is drained, ends, and serves again at its port."""
    scene.box.drain()
    return ""


def strike_local(scene: Scene) -> str:
    """A worker of the long-lived host is killed."""
    with contextlib.suppress(ProcessLookupError):  # one of an Upscaler that is just being closed
        if local := children(scene.host.process.pid):
            os.kill(scene.rng.choice(local), signal.SIGKILL)
    return ""


def cut(scene: Scene) -> str:
    """A cable is pulled, or works in one direction, and is plugged in again."""
    scene.box.box.link.cut(scene.rng.choice(["both", "box", "host"]))
    time.sleep(scene.rng.uniform(0.5, 6.0))
    scene.box.box.link.heal()
    return ""


def revoke(scene: Scene) -> str:
    """The client is shut out, and let in again."""
    scene.box.keys.revoke("laptop")
    time.sleep(scene.rng.uniform(0.2, 3.0))
    scene.world.allow(scene.box)
    return ""


def stranger(scene: Scene) -> str:
    """Somebody with a key that no box knows."""
    picture, out = _picture(scene, 40)[0], scene.world.folder / "stranger.png"
    command = scene.world.stranger.up(picture, out, "--on", scene.box.name)
    _, said = heard(command, COMMAND_S)
    if command.returncode != UNREACHED or NOT_ALLOWED not in said or out.exists():
        return f"a stranger's command ended with {command.returncode}: {said[-300:]}"
    return ""


def killed(scene: Scene) -> str:
    """A command is killed in the middle of a job; its session ends, and what it asked for."""
    (picture, wanted), out = _picture(scene, 300), scene.world.folder / "killed.png"
    where = scene.rng.choice(["any", "attic,cellar", scene.box.name])
    words = ("--on", where, "-t", "64", "--set", "delay=0.1", "--keep-alive", "0")
    with scene.world.client.up(picture, out, *words) as command:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(scene.rng.uniform(0.3, 3.0))
        command.kill()
    # The kill may come when all is done; but what is there under that name is whole.
    return "a killed command left a part of a picture" if out.exists() and not _is_right(out, wanted) else ""


def passing(scene: Scene) -> str:
    """A command comes, has a picture enlarged, and goes."""
    picture, wanted = _picture(scene, 200)
    where = scene.rng.choice(["any", "local,attic", "attic,cellar", scene.box.name])
    out = scene.world.folder / "passing.png"
    words = ("--on", where, "-t", str(scene.rng.choice([48, 64, 200])), "--keep-alive", scene.rng.choice(["0", "1s"]))
    command = scene.world.client.up(picture, out, *words)
    _, said = heard(command, COMMAND_S)
    if command.returncode:
        return f"upx up --on {where} ended with {command.returncode}: {said[-300:]}"
    right = _is_right(out, wanted)
    return "" if right else f"upx up --on {where} made another picture, or none"


def _is_right(path: Path, wanted: np.ndarray) -> bool:
    """Whether there is a picture, and the one that is wanted; it is removed."""
    try:
        with Image.open(path) as found:
            return np.array_equal(np.asarray(found), wanted)
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)


def _picture(scene: Scene, side: int) -> tuple[Path, np.ndarray]:
    noise = np.random.default_rng(scene.rng.randrange(2**32))
    array = noise.integers(0, 256, (scene.rng.randrange(1, side), scene.rng.randrange(1, side), 3), np.uint8)
    path = scene.world.folder / "command.png"
    Image.fromarray(array).save(path)
    return path, enlarged(array, 4)


EVENTS: dict[str, Callable[[Scene], str]] = {
    "strike": strike, "renew": renew, "drain": drain, "strike_local": strike_local, "cut": cut, "revoke": revoke,
    "stranger": stranger, "killed": killed, "passing": passing,
}  # fmt: skip
PROCESSES = frozenset({"strike", "renew", "drain"})


def dealt(rng: random.Random) -> Iterator[tuple[str, int]]:
    """(event, number of the box that it strikes) without end: every kind once a deck, in an order of its own."""
    deck = 0
    while True:
        names = list(EVENTS)
        rng.shuffle(names)
        deck += 1
        for name in names:
            spared = name in PROCESSES and deck % SPARED
            yield name, 0 if spared else rng.randrange(2)


def excused(error: tuple[str, str, str], happened: set[str]) -> bool:
    """Whether a job's error is what it must be: jobs on boxes alone, and the client was shut out meanwhile.

    A job that may run here as well never fails, whatever happens to boxes.
    """
    where, kind, _ = error
    return where == "far" and "revoke" in happened and kind in {"WorkerStartError", "WorkerLostError"}


def told(errors: list[tuple[str, str, str]], happened: set[str]) -> list[str]:
    """The errors that nothing excuses."""
    return [json.dumps(error) for error in errors if not excused(error, happened)]
