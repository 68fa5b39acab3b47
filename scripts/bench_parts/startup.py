"""Start-up: `import upx` above bare Python, and every help text."""

from __future__ import annotations

import statistics

from measure import PYTHON, UPX, environment, load, run
from report import Row, Table

TIMES = 20
IMPORT_GOAL_MS, HELP_GOAL_MS = 25.0, 150.0


def measure() -> Table:
    from upx.cli._app import VERBS

    commands = {
        "bare python": [PYTHON, "-c", "pass"],
        "import upx": [PYTHON, "-c", "import upx"],
        "upx --help": [UPX, "--help"],
        **{f"upx {verb.name} --help": [UPX, verb.name, "--help"] for verb in VERBS},
    }
    env = environment()
    for command in commands.values():
        run(command, env=env)  # bytecode and the page cache
    # In turns, so that a busy moment of the machine is shared out.
    rounds = [{name: 1000 * run(command, env=env)[0] for name, command in commands.items()} for _ in range(TIMES)]
    ms = {name: statistics.median(one[name] for one in rounds) for name in commands}
    added = statistics.median(one["import upx"] - one["bare python"] for one in rounds)
    rows = [Row("bare python", ms["bare python"], "ms"), Row("import upx, added", added, "ms", IMPORT_GOAL_MS)]
    rows += [Row(name, ms[name], "ms", HELP_GOAL_MS) for name in commands if name.endswith("--help")]
    return Table("startup", f"Start-up, medians of {TIMES}", tuple(rows), (load(),))
