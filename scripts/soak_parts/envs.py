"""Kill environment builds at moments spread over the build, and start four at once; the next setup must be whole.

    python scripts/soak_parts/envs.py --count 30 --seed 1

Builds the `nearest` environment with a cache and a home of its own, warmed by one build that is fetched. Half of the
cases kill the whole family (host, uv, probe) at a moment of the measured build; the other half kill the host alone
while its uv runs, at a moment of the measured time that uv takes. Each is followed at once by another setup, whose
environment must pass every hash. One line a case, a summary, exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from upx.config import Settings
from upx.specs import EnvSpec
from upx.venvs.builder import EnvBuilder
from upx.venvs.marker import MARKER

SPEC = EnvSpec("nearest", Path(__file__).resolve().parents[2] / "envs" / "nearest.lock")
TIMEOUT_S = 120.0
TRIES = 40
AT_ONCE = 4
# One kill of each kind.
LEAST_COUNT = 2


@dataclass(frozen=True)
class Times:
    """Seconds since a host's first word: uv's first step begins there, its last ends, the environment is there."""

    uv_end: float
    ready: float


@dataclass(frozen=True)
class Case:
    """What a kill met: uv alive, and no environment there yet."""

    uv_alive: bool
    before_marker: bool


def settings_for(home: Path) -> Settings:
    """The machine's index and network, and folders of this run alone."""
    network = {name: value for name, value in os.environ.items() if not name.startswith("UPX_")}
    return Settings.from_env({**network, "UPX_HOME": str(home), "UPX_UV_CACHE": str(home / "uv-cache")})


def host(home: Path) -> None:
    """Build, and say when each stage begins."""

    def say(stage: str) -> None:
        print(json.dumps({"stage": stage, "at": time.monotonic()}), flush=True)

    venv = EnvBuilder(settings_for(home)).ensure(SPEC, on_progress=lambda progress: say(progress.stage))
    print(json.dumps({"stage": "ready", "at": time.monotonic(), "folder": str(venv.folder)}), flush=True)


def start_host(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--host", str(home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measure(home: Path) -> Times:
    """The times of one warm build that nobody disturbs."""
    process = start_host(home)
    lines = [json.loads(line) for line in process.communicate(timeout=TIMEOUT_S)[0].splitlines()]
    begin = lines[0]["at"]
    at = {line["stage"]: line["at"] - begin for line in lines}
    clear(home)
    return Times(at["check"], at["ready"])


def clear(home: Path) -> None:
    """As on the first day, but for uv's cache; what a uv still writes into stays until it ends."""
    EnvBuilder(settings_for(home)).prune(unused=True)


def kill(home: Path, delay: float, *, alone: bool) -> Case:
    """Start a host and kill it, with its family unless ``alone``, ``delay`` seconds after its first word."""
    process = start_host(home)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(max(0.0, delay))
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    uv = [each for each in family if is_alive(each) and each.name() == "uv"]
    process.send_signal(signal.SIGKILL)
    for each in [] if alone else family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    alive = any(is_alive(each) for each in uv) if alone else bool(uv)
    process.wait(timeout=TIMEOUT_S)
    process.stdout.close()
    return Case(alive, before_marker=not list((home / "data" / "venvs").glob(f"*/{MARKER}")))


def is_alive(process: psutil.Process) -> bool:
    """Running, and not merely unburied."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def setup_is_whole(home: Path) -> str:
    """Set up once more; what is wrong with the result, empty when nothing is."""
    done = subprocess.run(
        [sys.executable, __file__, "--host", str(home)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else what_is_wrong(home)


def what_is_wrong(home: Path) -> str:
    builder = EnvBuilder(settings_for(home))
    venv = builder.find(SPEC)
    if venv is None:
        return "no environment after setup"
    if damage := builder.check(venv, hashes=True):
        return f"{len(damage)} damaged files, first {damage[0]}"
    imported = subprocess.run([venv.python, "-I", "-c", "import numpy, zmq, msgpack"], check=False)
    return "" if imported.returncode == 0 else "its packages do not import"


def killed_case(home: Path, number: int, delay: float, *, alone: bool) -> tuple[str, Case]:
    """One kill and the setup after it. One that met nothing (no uv of a host alone, or a build that had ended, as a
    build is now faster and now slower than the measured ones) is tried again, elsewhere."""
    case = kill(home, delay, alone=alone)
    for attempt in range(TRIES):
        if case.uv_alive if alone else case.before_marker:
            break
        clear(home)
        delay *= 0.5 + random.random() / 2
        if alone:
            delay = min(delay, 0.5 / (attempt + 1))
        case = kill(home, delay, alone=alone)
    wrong = setup_is_whole(home)
    if alone and not case.uv_alive:
        wrong = wrong or "uv was never met running"
    if not alone and not case.before_marker:
        wrong = wrong or "every kill came after the marker"
    who = "host alone" if alone else "host and uv"
    moment = f"{delay * 1000:5.0f} ms, {'before' if case.before_marker else 'after'} the marker"
    print(f"{'FAIL' if wrong else 'ok'} {number:3d} killed {who} at {moment} {wrong}".rstrip(), flush=True)
    clear(home)
    return wrong, case


def at_once_case(home: Path, number: int) -> str:
    """Four hosts at once: one builds, all end with the same whole environment."""
    hosts = [start_host(home) for _ in range(AT_ONCE)]
    said = [[json.loads(line) for line in each.communicate(timeout=TIMEOUT_S)[0].splitlines()] for each in hosts]
    built = sum(any(line["stage"] == "done" for line in lines) for lines in said)
    folders = {lines[-1].get("folder") for lines in said if lines}
    wrong = what_is_wrong(home)
    if any(each.returncode for each in hosts) or built != 1 or len(folders) != 1:
        wrong = wrong or f"{built} builds, {len(folders)} environments"
    print(f"{'FAIL' if wrong else 'ok'} {number:3d} four at once {wrong}".rstrip(), flush=True)
    clear(home)
    return wrong


def leftovers(home: Path) -> str:
    """Whatever a prune leaves once every uv has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        clear(home)
        left = [path.name for path in (home / "data" / "venvs").iterdir() if not path.name.endswith(".build.lock")]
        if not left:
            return ""
        time.sleep(0.2)
    return f"left over: {left}"


def soak(home: Path, count: int) -> int:
    started = time.monotonic()
    EnvBuilder(settings_for(home)).ensure(SPEC)
    print(f"first build, fetched: {time.monotonic() - started:.2f} s")
    clear(home)
    times = sorted((measure(home) for _ in range(3)), key=lambda each: each.ready)[1]
    print(f"warm build: {times.ready:.2f} s, of which uv until {times.uv_end:.2f} s")
    wrongs: list[str] = []
    cases: list[Case] = []
    for number in range(count):
        alone, share = number % 2 == 1, (number + random.random()) / count
        wrong, case = killed_case(home, number, share * (times.uv_end if alone else times.ready), alone=alone)
        wrongs.append(wrong)
        cases.append(case)
    wrongs += [at_once_case(home, count + number) for number in range(max(1, count // 6))]
    before = sum(case.before_marker for case in cases)
    wrongs.append("" if before * 3 >= count * 2 else f"only {before} of {count} kills came before the marker")
    wrongs.append(leftovers(home))
    print(f"{before} of {count} kills before the marker, {sum(case.uv_alive for case in cases)} met a running uv")
    failed = [wrong for wrong in wrongs if wrong]
    print(*failed, sep="\n", end="\n" if failed else "")
    print(f"{len(wrongs) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="kill environment builds and look at what the next setup makes of it")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--host", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.host:
        host(chosen.host)
        return 0
    seed = chosen.seed if chosen.seed is not None else random.randrange(1 << 32)
    random.seed(seed)
    print(f"seed {seed}")
    home = Path(tempfile.mkdtemp(prefix="upx-soak-envs-"))
    try:
        return soak(home, max(LEAST_COUNT, chosen.count))
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
