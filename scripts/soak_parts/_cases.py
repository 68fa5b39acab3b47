"""Run cases many times: a line each, what they leave behind, and the closing ``N passed, N failed``."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from upx.config import Settings
from upx.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def open_descriptors() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


def leftovers(before: set[int]) -> str:
    """Children and descriptors that a case left behind."""
    deadline = time.monotonic() + 5
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        descriptors = open_descriptors() - before
        # The listing itself holds one.
        if not children and len(descriptors) <= 1:
            return ""
        if time.monotonic() > deadline:
            return f"left behind: processes {children}, descriptors {sorted(descriptors)}"
        time.sleep(0.05)


def main(cases: Mapping[str, Callable[[Settings, random.Random], str]], about: str) -> int:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--case", choices=cases, action="append")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="upx-soak-") as home:
        os.environ["UPX_HOME"] = home
        settings = Settings.from_env()
        with Host(settings) as host:
            host.setup("nearest")
        for name in arguments.case or cases:
            for number in range(arguments.count):
                rng = random.Random(f"{seed}:{name}:{number}")
                before = open_descriptors()
                started = time.monotonic()
                try:
                    problem = cases[name](settings, rng) or leftovers(before)
                except Exception as error:  # noqa: BLE001  # a case that raises has failed, the others go on
                    problem = f"{type(error).__name__}: {error}"
                passed, failed = passed + (not problem), failed + bool(problem)
                print(f"{name} {number}: {problem or 'ok'} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
