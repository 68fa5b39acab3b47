"""The small program that delays and drops what passes between two TUN devices: built once, started, told what to do.

It is written in C because a packet a microsecond is more than Python can move.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from namespaces import SPACES, LabError, command

SOURCE = Path(__file__).with_suffix(".c")
BUILT = Path(__file__).resolve().parents[2] / ".cache" / "net"
FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Count:
    """Packets of one direction; while nothing is lost, one may stand for many that TCP sent together."""

    passed: int
    unlucky: int
    severed: int
    crowded: int


def build() -> Path:
    """The program, compiled when its source has changed."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:12]
    program = BUILT / f"shaper-{digest}"
    if not program.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        # Whole, then visible: several runs may build at once.
        beside = program.with_name(f"{program.name}.{os.getpid()}.{threading.get_ident()}")
        command("gcc", *FLAGS, "-o", beside, SOURCE)
        beside.rename(program)
    return program


class Shaper:
    """A running shaper between ``(namespace, device)`` and another; the devices live as long as it does."""

    def __init__(self, host: tuple[str, str], box: tuple[str, str]) -> None:
        self._ends = [word for space, device in (host, box) for word in (str(SPACES / space), device)]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [build(), *self._ends], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._expect("ready")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def shape(self, delay_s: float, loss: float, seed: int) -> None:
        self._tell(f"shape {round(delay_s * 1e9)} {round(loss * 1e6)} {seed}")
        self._expect("ok")

    def cut(self, *, to_box: bool, to_host: bool) -> None:
        self._tell(f"cut {to_box + 2 * to_host}")
        self._expect("ok")

    def counts(self) -> tuple[Count, Count]:
        """(to the box, to the host)."""
        self._tell("count")
        numbers = list(map(int, self._answer().split()))
        return Count(*numbers[:4]), Count(*numbers[4:])

    def _tell(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line:
            raise LabError(f"the shaper ended: {self._process.communicate()[1].strip()}")
        return line

    def _expect(self, wanted: str) -> None:
        if (line := self._answer()) != wanted:
            raise LabError(f"the shaper said {line!r} instead of {wanted!r}")
