"""An hour of mixed load with churn, and nothing rises: memory, descriptors, threads, files, sessions, on both sides.

    python scripts/soak_parts/churn.py --seed 1               one hour
    python scripts/soak_parts/churn.py --count 2 --seed 1     three minutes, for any count below ten
    python scripts/soak_parts/churn.py --minutes 20 --seed 1

Two boxes behind links of their own (``net_parts``: Linux, as root), workers here, and one host that lives all the time
and enlarges pictures of every kind on all of them, while commands come and go, workers are killed and started anew,
keys are revoked, cables pulled, boxes drained. Rounds of a few seconds each: then all is healed, what runs ends, and
every process is weighed at rest, so that what is left of a job shows.

Every output is compared with numpy's. An error of a job is a failure unless the round excuses it. The attic's
processes are replaced all the time; the cellar's grow old, and meet strangers, dead clients and a broken link.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _churn_events import EVENTS, Scene, dealt, told
from _churn_scales import GROWN_OLD, Scales
from _churn_world import ChurnError, LongLived, World, until
from _processes import lives
from lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable

FULL_S, FULL_COUNT, SHORT_S = 3600.0, 10, 180.0
# With fewer, on a machine that has much else to do, no slope could be told.
LEAST_ROUNDS = 8
EVENTS_A_ROUND, PAUSE_S = 3, (0.5, 2.5)
# Jobs may wait for a box that was given up; one that was shut out is tried again within half a minute, and the session
# of a client that could not say goodbye ends after 15 seconds of silence.
REST_S, STILL_S, AGAIN_S, SILENT_S, MORE_S = 400.0, 40.0, 120.0, 30.0, 4.0
POINTS = Path(__file__).resolve().parents[2] / ".cache" / "soak" / "churn.json"
# Memory of tiles goes back to the system a second after the last.
TRIM_S = 1.5


class Churn:
    """A run: its rounds, its figures, and what passed and failed."""

    def __init__(self, world: World, host: LongLived, seed: int) -> None:
        self.world, self.host, self._seed = world, host, seed
        self._events = dealt(random.Random(seed))
        self.scales = Scales(world, host)
        self.jobs = self.passed = 0
        self.done = dict.fromkeys(EVENTS, 0)
        self.failures: list[str] = []

    def check(self, what: str, problems: list[str]) -> None:
        """One check, passed or failed."""
        self.passed += not problems
        self.failures += [f"{what}: {problem}" for problem in problems]

    def round(self, number: int) -> None:
        """Work and churn, then rest, then the scales."""
        began, rng = time.monotonic(), random.Random(f"{self._seed}:{number}")
        self.host.tell(do="work", seed=rng.randrange(2**32))
        happened, problems = self._happen(rng)
        problems += self.world.heal()
        report, missing = self._worked(rng)
        problems += missing
        self.jobs += report["jobs"]
        excused = len(report["errors"])
        unexcused = told([tuple(error) for error in report["errors"]], set(happened.values()))
        problems += [*report["wrong"], *unexcused]
        problems += [] if report["jobs"] else ["no job was done"]
        rested = time.monotonic()
        problems += self._still()
        quiet = time.monotonic() - rested
        self.scales.weigh(self.jobs)
        self.check(f"round {number}", problems)
        print(
            f"round {number}: {', '.join(happened)}; {report['jobs']} jobs, {report['pixels'] / 1e6:.1f} MP, "
            f"{report['cancelled']} cancelled, {excused - len(unexcused)} errors excused; "
            f"{rested - began:.1f} s, still after {quiet:.1f} s"
            + "".join(f"\n  FAILED {problem}" for problem in problems),
            flush=True,
        )

    def _worked(self, rng: random.Random) -> tuple[dict[str, Any], list[str]]:
        """What the round came to, once it rests with both boxes at its service, whatever they have been through.

        Who was given up is tried again while there is work: as long as one is missing, there is more of it.
        """
        report, until_when = self.host.ask(REST_S, do="rest"), time.monotonic() + AGAIN_S
        while (missing := self.world.missing(self.host)) and time.monotonic() < until_when:
            self.host.tell(do="work", seed=rng.randrange(2**32))
            time.sleep(MORE_S)
            more = self.host.ask(REST_S, do="rest")
            report = {name: value + more[name] for name, value in report.items()}
        return report, [f"{name} is not used again" for name in missing]

    def _happen(self, rng: random.Random) -> tuple[dict[str, str], list[str]]:
        happened, problems = {}, []
        for name, number in itertools.islice(self._events, EVENTS_A_ROUND):
            time.sleep(rng.uniform(*PAUSE_S))
            box = self.world.boxes[number]
            happened[f"{name} {box.name}"] = name
            try:
                problem = EVENTS[name](Scene(self.world, self.host, box, rng))
            except (ChurnError, subprocess.TimeoutExpired) as error:
                problem = str(error)
            self.done[name] += 1
            problems += [f"{name} at {box.name}: {problem}"] if problem else []
        return happened, problems

    def _still(self) -> list[str]:
        """Wait until nothing goes on any more; what does, all the same."""
        left = self._await(lambda: not self.world.going_on(self.host), STILL_S, lambda: self.world.going_on(self.host))
        time.sleep(TRIM_S)
        return left

    def _await(self, look: Callable[[], bool], seconds: float, what: Callable[[], str]) -> list[str]:
        try:
            until(look, seconds, lambda: f"after {seconds:g} s: {what()}")
        except ChurnError as error:
            return [str(error)]
        return []

    def _sessions(self) -> str:
        return ", ".join(f"{box.name} has {box.sessions} sessions" for box in self.world.boxes)

    # Ends

    def alone(self) -> None:
        """The boxes have forgotten everybody but the long-lived host."""
        self.check(
            "alone", self._await(lambda: all(box.sessions == 1 for box in self.world.boxes), SILENT_S, self._sessions)
        )

    def ended(self) -> None:
        """All end well, and leave nothing."""
        steps: list[Callable[[], None]] = [self.host.close, *(box.stop for box in self.world.boxes)]
        for step in steps:
            try:
                step()
            except (ChurnError, subprocess.TimeoutExpired) as error:
                self.check("the end", [str(error)])
        inside = [self.world.lab.host, *(box.box for box in self.world.boxes)]
        left = [f"process {pid} is left" for place in inside for pid in place.pids() if lives(pid)]
        left += [f"{path} is left" for path in self.world.folder.glob("*/run/**/*") if path.is_socket()]
        self.check("nothing left", left)


def soak(churn: Churn, seconds: float) -> None:
    began = time.monotonic()
    rounds = itertools.count()
    while (number := next(rounds)) < LEAST_ROUNDS or time.monotonic() - began < seconds:
        churn.round(number)
    churn.alone()
    churn.ended()
    happened = ", ".join(f"{name} {times}" for name, times in churn.done.items())
    took = time.monotonic() - began
    print(f"{churn.jobs} jobs in {took / 60:.1f} minutes; {happened}")
    for verdict in churn.scales.verdicts(POINTS):
        print(verdict.line())
        if verdict.judged or verdict.name.startswith(GROWN_OLD):
            churn.check(verdict.name, [] if verdict.judged and verdict.right else [verdict.line()])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=FULL_COUNT)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None, help="instead of --count")
    parser.add_argument("--leak", type=int, default=0, help="bytes of every job to keep, which has to be noticed")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    seconds = FULL_S if arguments.count >= FULL_COUNT else SHORT_S
    seconds = seconds if arguments.minutes is None else 60 * arguments.minutes
    print(f"seed {seed}, {seconds:g} s, load average {os.getloadavg()[0]:.1f}", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upx-soak-churn-")))
        lab = stack.enter_context(Lab(boxes=2))
        world = World(lab, folder)
        host = LongLived(world.client, ["--leak", str(arguments.leak)])
        stack.callback(host.process.kill)
        churn = Churn(world, host, seed)
        try:
            soak(churn, seconds)
        except ChurnError as error:
            churn.failures.append(str(error))
    print("\n".join(churn.failures), end="\n" if churn.failures else "")
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"{churn.passed} passed, {len(churn.failures)} failed")
    return 1 if churn.failures else 0


if __name__ == "__main__":
    sys.exit(main())
