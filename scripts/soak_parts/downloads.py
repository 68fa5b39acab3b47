"""Downloads killed and dropped at random moments: the right bytes in the end, hardly more of them sent than there are.

    python scripts/soak_parts/downloads.py --count 200 --seed 1

Each case is one file behind a local server, fetched by real processes: one that is killed with SIGKILL is started
again until the file is there. Most files have 64 MB and more, and then the server may send at most 1.2 of their size.
Some are sent wrong once (fetched exactly once more), some for ever (never accepted), and some have no known hash
(continued by their ETag). Two cases run at a time. A line a case, and `N passed, N failed`; exit 1 when one failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and sys.argv[1:2] == ["--child"]:
    from upx.assets.fetch import Network, Want, fetch
    from upx.specs import UrlSource

    def child(address: str, sha256: str, folder: Path) -> None:
        want = Want("soak", (UrlSource(address),), sha256)
        network = Network(timeout=10.0, backoff=0.01)
        taken = folder / "taken"
        fetch(
            want, folder / "parts", network, present=taken.exists,
            take=lambda got: got.path.rename(taken), report=lambda _progress: None,
        )  # fmt: skip

    child(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    sys.exit()

import argparse
import hashlib
import random
import shutil
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "kits"))

from fault_server import MIB, Content, FaultServer, Route

if TYPE_CHECKING:
    from collections.abc import Iterable

AT_ONCE = 2
LIMIT_S = 120.0
LARGE = 64_000_000
MOST_SENT = 1.2


@dataclass(frozen=True)
class Case:
    """``wrong``: as the route's. ``kills``: how often its process is killed. ``known``: whether the hash is."""

    number: int
    size: int
    wrong: int
    drops: int
    kills: int
    known: bool

    def __str__(self) -> str:
        wrong = {0: "", 1: ", wrong once", -1: ", wrong for ever"}[self.wrong]
        hashed = "" if self.known else ", no hash"
        return f"{self.number:3d} {self.size:9d} B, {self.drops} drops, {self.kills} kills{wrong}{hashed}"


def draw(number: int, rng: random.Random) -> Case:
    size = rng.choices([rng.randrange(LARGE, LARGE + 8 * MIB), rng.randrange(1, 4 * MIB)], [3, 1])[0]
    kind = number % 10
    if kind in {3, 6}:
        return Case(number, size, 1, rng.randrange(3), 0, known=True)
    if kind == 9:
        return Case(number, size, -1, rng.randrange(3), 0, known=True)
    killed = number % 2 == 0
    return Case(
        number, size, 0, rng.randrange(0 if killed else 1, 4), rng.randrange(1, 4) * killed, known=kind not in {5, 8}
    )


class Run:
    """One case: its route, its folder, and the process that is fetching now."""

    def __init__(self, case: Case, server: FaultServer, home: Path, rng: random.Random) -> None:
        self.case = case
        self.rng = rng
        self.folder = home / str(case.number)
        self.kills = 0
        self.refused = False
        self._kill_at = 0
        self._reached = threading.Event()
        content = Content(case.size, seed=case.number)
        # A reset may swallow what was sent last: the one wrong byte has to arrive, or there is nothing to refetch.
        ends = [1] if case.wrong > 0 else [1, -1]
        reset = [rng.choice(ends) * rng.randrange(1, max(2, case.size * 2 // 3)) for _ in range(case.drops)]
        self.route = server.add(
            f"/{case.number}.bin", Route(content, wrong=case.wrong, drops=reset, on_piece=self._sent)
        )
        self.address = server.url(f"/{case.number}.bin")

    def problem(self) -> str:
        """Fetch until it is there; what was wrong, or nothing."""
        self.folder.mkdir()
        try:
            deadline = time.monotonic() + LIMIT_S
            while time.monotonic() < deadline and not self._start():
                pass
            return "; ".join(self._wrongs())
        finally:
            shutil.rmtree(self.folder)

    def _start(self) -> bool:
        """One process; whether it was the last that is needed."""
        sha256 = self.route.content.sha256 if self.case.known else ""
        command = [sys.executable, __file__, "--child", self.address, sha256, str(self.folder)]
        to_kill = self.kills < self.case.kills
        left = max(0, self.case.size - self.route.sent)
        self._kill_at = self.route.sent + self.rng.randrange(left + 1)
        self._reached.clear()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            if to_kill:
                self._kill(process)
            said = process.communicate(timeout=LIMIT_S)[1]
        if process.returncode > 0:
            self.refused = "FetchError" in said
            if not self.refused:
                print(said)
        return process.returncode >= 0

    def _kill(self, process: subprocess.Popen[str]) -> None:
        """When a random share of what is missing was sent, or a moment later; a start may be hit, too."""
        while process.poll() is None and not self._reached.wait(0.01):
            pass
        time.sleep(self.rng.choice([0.0, self.rng.random() * 0.03]))
        process.kill()
        self.kills += 1

    def _sent(self, sent: int) -> None:
        if sent >= self._kill_at:
            self._reached.set()

    def _wrongs(self) -> Iterable[str]:
        case, route = self.case, self.route
        taken = self.folder / "taken"
        whole = [seen for seen in route.seen if seen.status == 200]
        if case.wrong < 0:
            if taken.exists() or not self.refused:
                yield "wrong bytes were accepted" if taken.exists() else "it did not end with FetchError"
            if route.wrong_sent != 2:
                yield f"wrong bytes were fetched {route.wrong_sent} times"
            return
        if not taken.exists():
            yield "it never came"
            return
        with taken.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != route.content.sha256:
                yield "a wrong file was accepted"
        if case.wrong and (len(whole) != 2 or route.wrong_sent != 1):
            yield f"begun {len(whole)} times after one wrong byte"
        times = 2 if case.wrong else 1
        if case.size >= LARGE and route.sent > MOST_SENT * times * case.size:
            yield f"{self.ratio:.2f} of its size was sent"
        if left := list((self.folder / "parts").iterdir()):
            yield f"left over: {[path.name for path in left]}"

    @property
    def ratio(self) -> float:
        return self.route.sent / self.case.size


def soak(seed: int, count: int, home: Path) -> int:
    most, kills = 1.0, 0

    def one(number: int) -> str:
        nonlocal most, kills
        rng = random.Random(f"{seed}:{number}")
        run = Run(draw(number, rng), server, home, rng)
        began = time.monotonic()
        try:
            problem = run.problem()
        except Exception as error:  # noqa: BLE001  # a case that raises has failed, the others go on
            problem = f"{type(error).__name__}: {error}"
        if run.case.size >= LARGE and not run.case.wrong:
            most = max(most, run.ratio)
        kills += run.kills
        took = f"{run.ratio:.3f} sent, {time.monotonic() - began:.1f} s"
        print(f"{'FAIL' if problem else 'ok'} {run.case}, {took} {problem}".rstrip(), flush=True)
        return problem

    with FaultServer() as server, ThreadPoolExecutor(AT_ONCE) as pool:
        failed = sum(bool(problem) for problem in pool.map(one, range(count)))
    print(f"{kills} processes killed; of files of 64 MB and more at most {most:.3f} of the size was sent")
    print(f"{count - failed} passed, {failed} failed")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="upx-soak-downloads-") as home:
        return soak(seed, arguments.count, Path(home))


if __name__ == "__main__":
    sys.exit(main())
