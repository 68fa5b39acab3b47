"""The command as a user meets it: the very first run, the second with a warm worker, and what the network needs."""

from __future__ import annotations

import json
import shutil
import statistics

from bare import Bare
from measure import OUT, UPX, environment, load, picture, run
from report import Row, Table

TIMES = 7
EXCESS_GOAL_S = 0.6


def measure() -> Table:
    small = picture(256, 256, of="astronaut.png", crop=(120, 0, 376, 256))
    home, target = OUT / "runs-home", OUT / "runs.png"
    shutil.rmtree(home, ignore_errors=True)
    env = environment(home)
    command = [UPX, "up", small, "-o", target, "--keep-alive", "10m", "--json"]
    try:
        first, _ = run(command, env=env)
        warm, records = [], []
        for _ in range(TIMES):
            seconds, text = run(command, env=env)
            warm.append(seconds)
            records += [line for each in text.splitlines() if (line := json.loads(each))["kind"] == "picture"]
        run([UPX, "stop", "--all"], env=env)
        cold, _ = run([*command[:-3], "--keep-alive", "0"], env=env)
    finally:
        run([UPX, "stop", "--all"], env=env)
    with Bare(threads=2) as bare:
        two = statistics.median(bare.network(256) for _ in range(TIMES))
    with Bare(threads=1) as bare:
        one = statistics.median(bare.network(256) for _ in range(TIMES))
    again = statistics.median(warm)
    rows = (
        Row("first run, environment built from uv's warm cache", first, "s"),
        Row("run with a built environment, no worker", cold, "s"),
        Row(f"run with a warm worker, median of {TIMES}", again, "s"),
        Row("the network alone, one thread", one, "s"),
        Row("the network alone, two threads", two, "s"),
        Row("warm run above the network alone, one thread", again - one, "s", EXCESS_GOAL_S),
        Row("warm run above the network alone, two threads", again - two, "s", EXCESS_GOAL_S),
    )
    inside = statistics.median(record["seconds"] for record in records)
    return Table("runs", "upx up of a 256 x 256 picture", rows, (f"inside the warm job: {inside:.2f} s", load()))
