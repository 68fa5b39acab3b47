"""Strangers and bad clients at a box's door, while one good client is served: refused, logged, nothing lost or leaked.

python scripts/soak_parts/attackers.py --count 10 --seed 1     ten times: 100,000 connections, 1 GB of random bytes

Every attack has to show that it took place, that it was refused, and that the box said so. The 99th percentile of the
served client's round trips may be at most twice that of quiet times, or of a control where that is more, all rounds
taken together. The control is the same attack, at the same time of the run, upon a program on another port that takes
it and does nothing: what it costs that attackers share the box's processors is in both.

That cost is no attacker's from another machine, so it is kept small: box and client run before all others, as
real-time processes (SCHED_RR), where that is permitted, and `_attacks` after them. It also keeps what else runs on this
machine out of the figures.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import zmq
from _box import DEADLINE_S, RunningBox, client, trips
from _cases import main
from _figures import Figures
from _recording import recorded
from _targets import Done, Target

from upx.config import Settings
from upx.remote.boxes import Box
from upx.remote.keys import KeyRing, z85
from upx.remote.visit import visit
from upx_protocol.door import MAX_OFFENCES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from upx.workers.pool import WorkerPool

CONNECTIONS, RANDOM_BYTES = 10_000, 100_000_000
QUIET_S, ATTACK_S, LONGEST_S = 1.0, 2.0, 60.0
# What a worker may hold more after an attack than before it.
MOST_GROWN, MOST_DESCRIPTORS = 64 << 20, 64
MOST_LATE_S, NEWCOMER_S = 1.0, 2.0


@dataclass(frozen=True)
class Attack:
    """One way to attack a box, and what has to come of it.

    ``proof``: what was done and met with, each at least as often as said; ``logged``: what the box says of it, and how
    often at least. ``stand_in``: what is attacked as the control. ``client``: the attacker's key is allowed, at first.
    ``whole``: it has an end of its own.
    """

    proof: Callable[[Done], bool]
    logged: str = ""
    times: Callable[[Done], int] = lambda _done: 1
    stand_in: str = ""
    client: bool = False
    whole: bool = False


class Attacker:
    """A process of `_attacks`, from its start to what it says that it has done."""

    def __init__(self, name: str, target: Target) -> None:
        self._name, self._target = name, target

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("_attacks.py"), self._name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._process.stdin.write(json.dumps(asdict(self._target)) + "\n")
        self._process.stdin.flush()
        # It says so when it begins: a port where it is a server.
        self.port = int(self._process.stdout.readline() or 0)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def attacks(self) -> bool:
        return self._process.poll() is None

    def done(self) -> Done:
        """Let it end; RuntimeError where it fell over: an attack that did not take place proves nothing."""
        said, failure = self._process.communicate(timeout=DEADLINE_S)
        if self._process.returncode:
            raise RuntimeError(f"the attacker fell over: {failure.strip().splitlines()[-1]}")
        return Done(**json.loads(said))


class Round:
    """One attack upon one box, beside one client that is served."""

    def __init__(self, name: str, settings: Settings, rng: random.Random) -> None:
        self._name, self._attack, self._figures = name, ATTACKS[name], FIGURES.setdefault(name, Figures())
        self._box = RunningBox(settings)
        self._good, self._bad, self._new = (_home(settings, of) for of in ("good", f"bad-{name}", "new"))
        self._box.allow("good", self._good)
        self._box.allow("new", self._new)
        if self._attack.client:
            self._box.allow(name, self._bad)
        keys = KeyRing(self._bad).client()
        self._target = Target(
            server=z85(self._box.keys.public("server")), public=keys.public, secret=keys.secret,
            seed=rng.randrange(2**32), connections=CONNECTIONS, nbytes=RANDOM_BYTES,
        )  # fmt: skip

    def run(self) -> str:
        """What went wrong; empty for nothing."""
        with self._box as box, client(box, self._good) as pool:
            target = replace(self._target, port=box.port)
            if self._name == "replay":
                target = replace(target, said=recorded(box, KeyRing(self._good).client()).hex())
            if self._name == "impostor":
                target = replace(target, server=box.keys.public("server"), home=str(self._bad.data_dir.parent))
            trips(pool, 0.3)
            held, open_before = box.resident, box.descriptors
            self._figures.quiet += trips(pool, QUIET_S)
            self._figures.control += self._control(target, pool)
            problem, done = self._under_attack(target, pool)
            self._figures.quiet += trips(pool, QUIET_S)
            self._figures.attacks.append(done)
            problem = problem or done.problem or _kept(box, held, open_before)
        print(f"  {done}", flush=True)
        if not problem and not self._attack.proof(done):
            problem = "the attack hardly took place"
        return problem or self._untold(done)

    def _control(self, target: Target, pool: WorkerPool) -> list[float]:
        """The good client's round trips while a program that is none of its box takes the same attack."""
        stand_in = self._attack.stand_in
        if not stand_in:
            return []
        taken = target
        if stand_in == "curve_sink":
            public, secret = (key.decode() for key in zmq.curve_keypair())
            known = KeyRing(self._bad).public("client") if self._attack.client else ""
            taken, target = Target(server=public, secret=secret, public=known), replace(target, server=public)
        with Attacker(stand_in, taken) as taker, Attacker(self._name, replace(target, port=taker.port)) as attacker:
            took = trips(pool, self._seconds, lambda: attacker.attacks)
            attacker.done()
            taker.done()
        return took

    def _under_attack(self, target: Target, pool: WorkerPool) -> tuple[str, Done]:
        problem, took = "", self._figures.attacked
        with Attacker(self._name, target) as attacker:
            took += trips(pool, 1.0)
            if self._name == "revoked":
                at = time.time()
                self._box.keys.revoke(self._name)
                took += trips(pool, self._seconds)
                done = attacker.done()
                return _too_late(done, at), done
            # Whoever comes for the first time now is let in as well.
            began = time.monotonic()
            visit(Box("attic", f"tcp://127.0.0.1:{self._box.port}", self._box.keys.public("server")), self._new)
            if (waited := time.monotonic() - began) > NEWCOMER_S:
                problem = f"a new client waited for {waited:.1f} s"
            took += trips(pool, self._seconds, lambda: attacker.attacks)
            return problem, attacker.done()

    @property
    def _seconds(self) -> float:
        return LONGEST_S if self._attack.whole else ATTACK_S

    def _untold(self, done: Done) -> str:
        """Whether the box has said that it refused what it refused; all of it is told when it has ended."""
        if not self._attack.logged:
            return ""
        told = 0
        for line in self._box.said.splitlines():
            if f"refused: {self._attack.logged}" in line:
                more = re.search(r", ([0-9]+) times more$", line)
                told += int(more[1]) if more else 1
        # A few strangers may pass for somebody else's connection: see the door's `_settle`.
        wanted = 0.999 * self._attack.times(done)
        return "" if told >= wanted else f"{self._attack.logged!r} is in the log {told} times, of {wanted:.0f}"


def _home(settings: Settings, name: str) -> Settings:
    return Settings.from_env({"UPX_HOME": str(settings.data_dir.parent / name)})


def _too_late(done: Done, at: float) -> str:
    """Whether a revoked client was served, or not told, or not shown out, a second later."""
    late = {what: when - at for what, when in done.times.items()}
    print(f"  revoked; seconds later: {late}", flush=True)
    missing = {"served", "revoked", "closed"} - set(late)
    if missing:
        return f"nothing was {', '.join(sorted(missing))}"
    return "" if max(late.values()) <= MOST_LATE_S else f"it took more than {MOST_LATE_S} s"


def _kept(box: RunningBox, held: int, open_before: int) -> str:
    """What a worker holds more after an attack, in memory and descriptors; a handshake may take a while."""
    until = time.monotonic() + 8.0
    while (grown := box.descriptors - open_before) > MOST_DESCRIPTORS and time.monotonic() < until:
        time.sleep(0.1)
    if grown > MOST_DESCRIPTORS:
        return f"the worker has {grown} descriptors more"
    if (more := box.resident - held) > MOST_GROWN:
        return f"the worker holds {more >> 20} MiB more"
    return ""


FIGURES: dict[str, Figures] = {}
WORDLESS = "a connection without a word"
ATTACKS = {
    "wrong_keys": Attack(
        lambda done: done.refused == done.connections >= 50,
        "a key that is not allowed", lambda done: done.refused, stand_in="curve_sink",
    ),
    "noise": Attack(
        lambda done: done.closed == done.connections == CONNECTIONS and done.sent >= RANDOM_BYTES,
        WORDLESS, lambda done: done.connections, stand_in="sink", whole=True,
    ),
    "loris": Attack(lambda done: done.closed >= 500, "one of too many", lambda _done: 500, stand_in="sink"),
    "replay": Attack(
        lambda done: done.closed >= done.connections - 1 >= 50 and done.sent > 0,
        WORDLESS, lambda done: done.closed, stand_in="sink",
    ),
    "bad_client": Attack(
        lambda done: done.closed >= 1 and done.refused >= 1 and done.sent >= 1_000_000,
        "a message (", lambda _done: MAX_OFFENCES, stand_in="curve_sink", client=True,
    ),
    # It reads nothing, and so cannot notice that it was shown out.
    "miser": Attack(
        lambda done: done.sent >= 1_000_000,
        "a message (credit)", lambda _done: MAX_OFFENCES, stand_in="curve_sink", client=True,
    ),
    "revoked": Attack(
        lambda done: done.served >= 20 and done.refused >= 20,
        "a key that is not allowed", lambda done: done.refused, client=True,
    ),
    "impostor": Attack(lambda done: done.refused == done.connections >= 3),
}  # fmt: skip


def judged(code: int) -> int:
    """All rounds together: the exit status."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, figures in FIGURES.items():
        print(f"{name}: {figures}{'; TOO MUCH' if figures.too_much else ''}")
    return 1 if any(figures.too_much for figures in FIGURES.values()) else code


def go_first() -> None:
    """This process, and the box that it starts, before all others."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    except PermissionError:
        print("not permitted to be real-time: attackers are idle instead, and what else runs here is in the figures")


if __name__ == "__main__":
    go_first()
    cases = {name: lambda settings, rng, name=name: Round(name, settings, rng).run() for name in ATTACKS}
    sys.exit(judged(main(cases, "attack a box")))
