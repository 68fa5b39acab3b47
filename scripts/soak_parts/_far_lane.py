"""One lane of the far soak: a client and boxes of its own, and its jobs, one after the other, struck and judged."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from _far_boxes import POLL_S, FarBox, tail
from _far_client import Client
from _far_deadlines import LOST, deadline, ends_well
from _far_left import Leftovers
from _far_releases import OURS, STRANGE
from _far_strikes import STRIKES, Scene

from upx.workers import registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from _far_jobs import Job
    from lab import Box, Lab

NAMES = ("attic", "cellar")
# Commands that look at boxes take seconds: after so many jobs, and at the end.
LOOK_EVERY = 8
TRIED_AGAIN = "tried again"


@dataclass(frozen=True)
class Outcome:
    """What became of a job. ``hit``: tiles were in flight when it was struck; ``seconds`` of the command that counts.

    ``again``: its host said that tiles were tried again; ``settled``: seconds until nothing was left.
    """

    job: Job
    hit: bool = False
    code: int = -1
    seconds: float = 0.0
    problem: str = ""
    again: bool = False
    settled: float = 0.0


class Lane:
    """``home`` is its folder, ``places`` its boxes in the lab, of which it uses no others."""

    def __init__(self, lab: Lab, places: Sequence[Box], home: Path, environ: Mapping[str, str], venvs: Path) -> None:
        self._home = home
        self._client = Client(lab, home / "laptop", environ)
        self._boxes = [
            FarBox(place, name, home / name, environ, venvs) for place, name in zip(places, NAMES, strict=True)
        ]
        self._leftovers = Leftovers(self._client, self._boxes)
        self._jobs = 0

    def start(self, warm_ups: Sequence[Job]) -> None:
        """Serve, and learn from jobs that nobody disturbs what the processes hold."""
        for box in self._boxes:
            self._client.add(box)
            box.start()
        for job in warm_ups:
            if problem := self.run(job).problem:
                raise RuntimeError(problem)
        self._leftovers.learn()

    def looked(self) -> str:
        """What the boxes still have, and what they say of themselves."""
        return self._leftovers.settled() or self._leftovers.told()

    def close(self) -> str:
        """End the boxes; what is left of them."""
        for box in self._boxes:
            box.stop()
        pids = [pid for box in self._boxes for pid in box.place.pids()]
        entries = [entry for box in self._boxes for entry in registry.folder(box.settings).glob("*.json")]
        return f"left behind: processes {pids}, entries {entries}" if pids or entries else ""

    # One job

    def run(self, job: Job) -> Outcome:
        """Run it, strike, judge, and look at what is left; one that went wrong leaves fresh boxes to the next."""
        self._jobs += 1
        attempt = _Attempt(job, self._home / f"job{self._jobs}", self._client, self._boxes)
        problem, began = "", time.monotonic()
        try:
            problem = attempt.run()
            began = time.monotonic()
            problem = problem or self._leftovers.settled()
            settled = time.monotonic() - began
            if not problem and self._jobs % LOOK_EVERY == 0:
                problem = self._leftovers.told()
        except Exception as error:  # noqa: BLE001  # a job that raises has failed, the others go on
            problem, settled = problem or f"{type(error).__name__}: {error}", time.monotonic() - began
        if problem:
            problem = "\n".join([problem, *attempt.words(), *(box.words() for box in self._boxes)])
            for box in self._boxes:
                box.renew()
        again = TRIED_AGAIN in attempt.said
        return Outcome(job, attempt.hit, attempt.code, attempt.seconds, problem, again, settled)


class _Attempt:
    """One job, from its first command to its verdict. ``stem`` names what is written of it."""

    def __init__(self, job: Job, stem: Path, client: Client, boxes: Sequence[FarBox]) -> None:
        self._job, self._client, self._boxes = job, client, boxes
        self._folder, self._log, self._order = (
            client.work / stem.name,
            stem.with_suffix(".log"),
            stem.with_suffix(".json"),
        )
        self._struck = [boxes[number] for number in job.struck]
        self.hit, self.code, self.seconds = False, -1, 0.0

    def run(self) -> str:
        """What is wrong with it."""
        self._folder.mkdir()
        if problem := self._command(strike=self._job.fault != "none"):
            return problem
        if self._job.fault != "kill-host" or not self.hit:
            return self._judged(done=ends_well(self._job, hit=self.hit))
        if self.code != -signal.SIGKILL:
            return f"a killed host ended with {self.code}"
        # Nothing may be there of it, and the same command has to succeed at once.
        if problem := self._job.wrong(self._folder, done=False) or self._command(strike=False):
            return f"after its host was killed: {problem}"
        return self._judged(done=True)

    def _command(self, *, strike: bool) -> str:
        """Run the host to its end, which has to come before its deadline."""
        words = self._job.write(self._folder, self._order, [box.name for box in self._boxes])
        began, limit = time.monotonic(), deadline(self._job)
        with self._client.host(words, self._log) as host:
            if strike and self._in_flight(host, began + limit):
                self.hit = True
                with STRIKES[self._job.fault](Scene(self._job, host, self._struck)):
                    _wait(host, min(began + limit, time.monotonic() + (self._job.hold or limit)))
            ended = _wait(host, began + limit)
            self.seconds = time.monotonic() - began
        self.code = host.returncode
        return "" if ended else f"it hangs: not ended within {limit:.0f} s"

    def _in_flight(self, host: subprocess.Popen[bytes], until: float) -> bool:
        """Wait for the moment to strike; whether the boxes that will be struck compute for it then."""
        while not (busy := self._busy(host)) and host.poll() is None and time.monotonic() < until:
            time.sleep(POLL_S)
        if busy:
            time.sleep(self._job.share * self._job.work / len(self._job.boxes))
        return self._busy(host)

    def _busy(self, host: subprocess.Popen[bytes]) -> bool:
        return host.poll() is None and all(box.hosts and box.computing for box in self._struck)

    def _judged(self, *, done: bool) -> str:
        if self.code != (0 if done else LOST):
            return f"it ended with {self.code}"
        if not done and (missing := [words for words in self._asked() if words not in self.said]):
            return f"its error does not say {missing}"
        return self._job.wrong(self._folder, done=done)

    def _asked(self) -> list[str]:
        """What the words of a job that cannot be done have to hold."""
        if self._job.fault == "incompatible-alone":
            return [f"{release.oldest} to {release.newest}" for release in (OURS, STRANGE)]
        return [f"{self._struck[0].name} cannot be reached"]

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def words(self) -> list[str]:
        """The last lines of its host."""
        return [f"host | {line}" for line in tail(self._log, 8)]


def _wait(host: subprocess.Popen[bytes], until: float) -> bool:
    """Whether it ends before that time."""
    try:
        host.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True
