"""Jobs on boxes of a network lab under random faults of both sides and of the cables: right, in time, nothing left.

    python scripts/soak_parts/far_faults.py --count 10 --seed 1     two hundred jobs; --job 17: that of the seed alone

Each lane has a client and two boxes behind links of their own and runs its jobs one after the other; the twenty jobs
of a count have all faults (``_far_jobs.DECK``). A job has to end before its deadline (``_far_deadlines``), with the
output or with the exit code that its fault allows, and to leave nothing on either side (``_far_left``). For Linux, as
root.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "net_parts"))

from _far_deadlines import LOST, deadline  # noqa: E402
from _far_jobs import DECK, draw, warm_up  # noqa: E402
from _far_lane import NAMES, Lane, Outcome  # noqa: E402
from lab import Lab  # noqa: E402
from namespaces import LabError  # noqa: E402

from upx.config import Settings  # noqa: E402
from upx.host import Host  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

# So many, where there are jobs for them: boxes are most of the cost of a short run.
LANES, JOBS_A_LANE = 5, 5
# Most faults have to meet tiles in flight, and a killed worker's tiles have to be missed, or the run says nothing.
HIT_SHARE, AGAIN_SHARE = 0.8, 0.5
GONE_S = 5.0


def soak(seed: int, numbers: Sequence[int], home: Path) -> int:
    """The jobs of these numbers, in lanes; the exit code."""
    environ, venvs, began = _environ(), _built(home), time.monotonic()
    count = max(1, min(LANES, len(numbers) // JOBS_A_LANE))
    with Lab(boxes=len(NAMES) * count) as lab, ThreadPoolExecutor(count) as threads:
        places = [lab.boxes[first : first + len(NAMES)] for first in range(0, len(lab.boxes), len(NAMES))]
        lanes = [Lane(lab, mine, home / f"lane{number}", environ, venvs) for number, mine in enumerate(places)]
        ran = list(threads.map(lambda number: _lane(lanes[number], seed, numbers[number::count]), range(count)))
        left = lab.host.pids()
    outcomes = [outcome for each, _ in ran for outcome in each]
    _report(outcomes, time.monotonic() - began)
    checks = [problem for _, problem in ran]
    checks += [f"hosts were left: {left}" if left else "", _gone(home), _met(outcomes)]
    for problem in filter(None, checks):
        print(f"FAIL seed {seed}: {problem}")
    # A job that never ran has failed as well.
    failed = len(numbers) - sum(not outcome.problem for outcome in outcomes) + sum(map(bool, checks))
    print(f"{len(numbers) + len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _lane(lane: Lane, seed: int, numbers: Sequence[int]) -> tuple[list[Outcome], str]:
    """Its jobs; and what was wrong with the lane itself."""
    outcomes: list[Outcome] = []
    try:
        lane.start([warm_up(seed, box) for box in range(len(NAMES))])
        for number in numbers:
            outcomes.append(outcome := lane.run(draw(number, seed, len(NAMES))))
            print(_line(outcome, seed), flush=True)
        return outcomes, lane.looked() or lane.close()
    except Exception as error:  # noqa: BLE001  # a lane that breaks has failed, the others go on
        return outcomes, f"the lane of jobs {list(numbers)}: {type(error).__name__}: {error}"


def _line(outcome: Outcome, seed: int) -> str:
    met = "hit" if outcome.hit else "not hit"
    told = f"{met}, ended with {outcome.code} after {outcome.seconds:.1f} of {deadline(outcome.job):.0f} s"
    line = f"{outcome.job}: {told}, settled in {outcome.settled:.1f} s"
    return f"FAIL seed {seed}, job {line}: {outcome.problem}" if outcome.problem else f"ok {line}"


def _environ() -> dict[str, str]:
    """What hosts and boxes see of this process's environment: no choice of its user's, and no network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPX_")}
    return {**kept, "UPX_OFFLINE": "1"}


def _built(home: Path) -> Path:
    """Environments, built once for all boxes."""
    with Host(Settings.from_env({**os.environ, "UPX_HOME": str(home / "built")})) as host:
        return host.setup("nearest").folder.parent


def _met(outcomes: list[Outcome]) -> str:
    """Whether the faults met what they are for."""
    faults = [outcome for outcome in outcomes if outcome.job.fault != "none"]
    hits = sum(outcome.hit for outcome in faults)
    killed = [outcome.again for outcome in faults if outcome.hit and outcome.job.fault == "kill-worker"]
    if hits < HIT_SHARE * len(faults):
        return f"only {hits} of {len(faults)} faults met tiles in flight"
    enough = sum(killed) >= AGAIN_SHARE * len(killed)
    return "" if enough else f"only {sum(killed)} of {len(killed)} killed workers had tiles that were tried again"


def _gone(home: Path) -> str:
    """Processes that live on: this run's folder is in the environment, or on the command line, of each."""
    until, ours = time.monotonic() + GONE_S, os.fsencode(home)
    while left := [path.name for path in Path("/proc").glob("[0-9]*") if ours in _facts(path)]:
        if time.monotonic() > until:
            return f"processes were left: {left}"
        time.sleep(0.1)
    return ""


def _facts(process: Path) -> bytes:
    try:
        return b"".join((process / name).read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        # It has ended meanwhile.
        return b""


def _report(outcomes: list[Outcome], seconds: float) -> None:
    """A line a fault, with the slowest against its deadline; and how long anything was left at most."""
    for fault in dict.fromkeys(DECK):
        if found := [outcome for outcome in outcomes if outcome.job.fault == fault]:
            slowest = max(found, key=lambda outcome: outcome.seconds)
            print(
                f"{fault:18s} {len(found):3d} jobs, {sum(each.hit for each in found):3d} hit work, "
                f"{sum(each.again for each in found):3d} with tiles tried again, "
                f"{sum(each.code == LOST for each in found):3d} ended with {LOST}, "
                f"slowest {slowest.seconds:.1f} of {deadline(slowest.job):.0f} s, "
                f"settled in {max(each.settled for each in found):.1f} s"
            )
    faults = [outcome for outcome in outcomes if outcome.job.fault != "none"]
    print(f"{len(outcomes)} jobs, {len(faults)} faults, {sum(each.hit for each in faults)} hit work, {seconds:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description="jobs on boxes under random faults of both sides and of the cables")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--job", type=int, action="append", help="run these of a seed's jobs again, and no others")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="upx-soak-far-") as home:
            return soak(seed, arguments.job or range(len(DECK) * arguments.count), Path(home))
    except LabError as error:
        print(f"no network lab here: {error}\n0 passed, 1 failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
