"""One box of the far soak: a machine in the network lab, its life, and what can be seen of it at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from _far_releases import OURS, Code, Release
from _processes import lives

from upx.config import Settings
from upx.remote.keys import KeyRing
from upx.workers import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab import Box

How = Literal["reload", "restart"]
PORT, METRICS = 7600, 9600
START_S, STOP_S, POLL_S = 40.0, 15.0, 0.05


@dataclass(frozen=True)
class Holdings:
    """What one process holds: open descriptors, and resident bytes."""

    descriptors: int
    resident: int

    @classmethod
    def of(cls, pid: int) -> Holdings:
        """OSError where it has gone."""
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return cls(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()), int(pages) * os.sysconf("SC_PAGE_SIZE"))


class FarBox:
    """``place`` is its machine in the lab, ``home`` its folder; ``venvs`` are built already."""

    def __init__(self, place: Box, name: str, home: Path, environ: Mapping[str, str], venvs: Path) -> None:
        self.place, self.name, self.home = place, name, home
        self._code = Code(home / "code")
        path = filter(None, (str(self._code.folder), environ.get("PYTHONPATH")))
        self._environ = {**environ, "UPX_HOME": str(home), "PYTHONPATH": os.pathsep.join(path)}
        self.settings = Settings.from_env(self._environ)
        self.settings.data_dir.mkdir(parents=True)
        (self.settings.data_dir / "venvs").symlink_to(venvs, target_is_directory=True)
        self.ring = KeyRing(self.settings)
        self._said = home / "served.log"
        self._build = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"tcp://{self.place.address}:{PORT}"

    # Its life

    def start(self) -> None:
        """Serve; returns once the worker has bound."""
        words = ["worker", "serve", "nearest", "--listen", f"tcp://0.0.0.0:{PORT}", "--name", self.name]
        with self._said.open("ab") as said:
            self._process = self.place.popen(
                [sys.executable, "-m", "upx", *words, "--metrics", METRICS],
                env=self._environ, cwd=self.home, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
        entry = awaited(lambda: self.entry if self.running else {"build": ""}, START_S, f"{self.name} serves")
        if not self.running:
            raise RuntimeError(f"{self.name} does not start")
        self._build = self._build or entry["build"]

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The box's own, which keeps the worker."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def stop(self) -> None:
        """As a service manager stops it; TimeoutExpired, or RuntimeError where that is no good end."""
        self.process.terminate()
        if (code := self.process.wait(STOP_S)) != 0:
            raise RuntimeError(f"{self.name} ended with {code}")

    def renew(self) -> None:
        """Whatever state it is in: as in the beginning, so that a job is not judged by the fault of the one before."""
        for pid in self.place.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)
        self.place.link.heal()
        self.place.link.shape()
        self._code.install(OURS)
        self.start()

    def update(self, release: Release, how: How) -> None:
        """Install a release and tell the box: one worker after the other, which takes its time, or all of it anew."""
        self._code.install(release)
        if how == "reload":
            self.process.send_signal(signal.SIGHUP)
        else:
            self.stop()
            self.start()

    def back_to_ours(self) -> None:
        """Undo an update, and wait until it is undone."""
        self.update(OURS, "reload")
        awaited(lambda: self.entry.get("build") == self._build, START_S, f"{self.name} is back at our release")

    # What there is to see

    @property
    def entry(self) -> dict[str, Any]:
        """What its living worker has written into the registry; empty while none has bound."""
        for path in registry.folder(self.settings).glob("*.json"):
            # It goes with its worker, holds little before that has bound, and stays when it is killed.
            with contextlib.suppress(FileNotFoundError, ValueError):
                found = json.loads(path.read_bytes())
                if lives(found.get("pid", 0)):
                    return found
        return {}

    @property
    def worker(self) -> int:
        """Its worker's process."""
        return awaited(lambda: self.entry.get("pid", 0), START_S, f"{self.name} has a worker")

    @property
    def computing(self) -> bool:
        return self.entry.get("busy_since") is not None

    @property
    def hosts(self) -> int:
        """How many have a session."""
        return self.entry.get("hosts", 0)

    def holdings(self) -> dict[str, Holdings]:
        """OSError or KeyError while a process comes or goes."""
        return {"box": Holdings.of(self.process.pid), "worker": Holdings.of(self.entry["pid"])}

    def strays(self) -> str:
        """Processes, registry entries and sockets that are neither the box's nor its one worker's."""
        expected, found = {self.process.pid, self.entry.get("pid", 0)}, set(self.place.pids())
        if found != expected:
            return f"{self.name} runs processes {sorted(found)} instead of {sorted(expected)}"
        entries = list(registry.folder(self.settings).glob("*.json"))
        if len(entries) != 1:
            return f"{self.name} has {len(entries)} registry entries"
        runtime = self.settings.runtime_dir
        sockets = [path for path in (runtime.rglob("*") if runtime else ()) if path.is_socket()]
        return f"{self.name} has sockets {sockets}" if sockets else ""

    def metric(self, name: str) -> float:
        """One figure of its worker, as Prometheus reads it."""
        with self.place.enter(), urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        return float(re.findall(rf"^{name}{{.*}} ([0-9.e+-]+)$", page, re.MULTILINE)[0])

    def words(self, lines: int = 6) -> str:
        """The last lines of the box and of its workers."""
        logs = [self._said, *sorted((self.settings.state_dir / "logs").glob("*.log"))]
        return "\n".join(f"{self.name} | {line}" for path in logs for line in tail(path, lines))


def awaited(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """What ``look`` finds, once it finds anything; TimeoutError says what never came."""
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(POLL_S)
    return found


def tail(path: Path, lines: int) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
