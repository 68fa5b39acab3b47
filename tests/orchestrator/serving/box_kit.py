"""A box that really runs, the machine that it runs on, and the one that uses it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from upx.config import Settings
from upx.remote.boxes import Book
from upx.remote.boxes import Box as Known
from upx.remote.keys import KeyRing
from upx.workers.registry import list_workers

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 20.0
REFUSED = "does not let this machine in"
SERVE = ("worker", "serve", "nearest", "--listen", "tcp://127.0.0.1:0", "--name", "attic")


def until(look: Callable[[], object], seconds: float = DEADLINE_S, says: Callable[[], str] = str) -> object:
    """What ``look`` finds, once it finds anything."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"never came: {says()}"
        time.sleep(0.02)
    return found


def lives(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def await_busy(settings: Settings) -> None:
    """Return when a worker of that machine computes, so that what comes next comes midway."""

    def computes() -> bool:
        # Its entry goes with a worker that leaves meanwhile.
        entries = [content(info.path) for info in list_workers(settings) if info.hosts]
        return any(json.loads(entry)["busy_since"] for entry in entries if entry)

    until(computes)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def content(path: Path) -> bytes:
    """What a file holds; nothing where it has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Machine:
    """A home, and the commands that are run in it."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self.env = {**env, "UPX_HOME": str(home)}
        self.home = home
        self.settings = Settings.from_env(self.env)
        self.keys = KeyRing(self.settings)

    def upx(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "upx", *map(str, words)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def records(self, *words: object) -> list[dict]:
        ended = self.upx(*words, "--json")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def refused(self, *words: object) -> str:
        """The words of a command that ends with 7."""
        ended = self.upx(*words)
        assert ended.returncode == 7, ended.stdout + ended.stderr
        return ended.stderr

    def knows(self, box: Box) -> None:
        """As after ``upx worker add``."""
        Book(self.settings).add(Known(box.name, box.address, box.machine.keys.public("server"), box.backend))


class Box:
    """``upx worker serve``, and what it has said."""

    def __init__(self, machine: Machine, said: Path, *words: str) -> None:
        self.machine, self._said = machine, said
        with said.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "upx", *(words or SERVE)], env=machine.env, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file,
            )  # fmt: skip
        until(lambda: " serves " in self.said, says=lambda: self.said)
        self.address, port = re.findall(r"(tcp://[0-9.\[\]:]+:([0-9]+))", self.said)[-1]
        self.port = int(port)
        self.name, self.backend = re.findall(r"(\w+) serves (\w+)", self.said)[-1]

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def child(self) -> int:
        """Its worker's process, the last one."""
        return int(re.findall(r": process ([0-9]+)", self.said)[-1])

    def await_busy(self) -> None:
        await_busy(self.machine.settings)

    def await_another(self, child: int) -> None:
        until(lambda: self.child != child, says=lambda: self.said)
        assert lives(self.child)

    def ended(self, seconds: float = DEADLINE_S) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        child = self.child
        self.process.kill()
        self.process.wait()
        until(lambda: not lives(child))
