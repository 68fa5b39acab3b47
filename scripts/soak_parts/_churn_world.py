"""The machines of the churn: two boxes at the ends of their links, a client, a stranger, and the long-lived host."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

PARTS = Path(__file__).resolve().parents[1] / "net_parts"
sys.path.insert(0, str(PARTS))

from _churn_figures import children  # noqa: E402
from _processes import heard, lives  # noqa: E402
from link import GIGABIT, Shape  # noqa: E402

from upx.config import Settings  # noqa: E402
from upx.host import Host  # noqa: E402
from upx.remote.boxes import Book  # noqa: E402
from upx.remote.boxes import Box as Known  # noqa: E402
from upx.remote.keys import KeyRing  # noqa: E402
from upx.workers.registry import list_workers  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab import Box, Lab

PORT, ESTABLISHED = 7600, "01"
START_S, END_S, DRAIN_S, TELL_S = 60.0, 30.0, 120.0, 1.0
SLOW = Shape(rate=50e6, delay=0.020, loss=0.002)
LINKS = {"attic": GIGABIT, "cellar": SLOW}
UPX = (sys.executable, "-m", "upx")


class ChurnError(RuntimeError):
    """Something that had to happen did not, in time or at all."""


def until(look: Callable[[], object], seconds: float, what: Callable[[], str]) -> Any:
    """What ``look`` finds, once it finds anything; ChurnError when that takes longer."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise ChurnError(what())
        time.sleep(0.05)
    return found


class Serving:
    """One box: its machine's home, its link, and ``upx worker serve``, which may be ended and begun again."""

    def __init__(self, name: str, box: Box, home: Path) -> None:
        self.name, self.box, self.home = name, box, home
        self.env = {**os.environ, "UPX_HOME": str(home)}
        self.settings = Settings.from_env(self.env)
        self.keys = KeyRing(self.settings)
        self.log = home / "served.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to serve, at the port of always."""
        words = [*UPX, "worker", "serve", "nearest", "--listen", f"tcp://0.0.0.0:{PORT}", "--name", self.name]
        with self.log.open("ab") as log:
            begin = log.tell()
            self.process = self.box.popen(words, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: b"serves nearest" in self.log.read_bytes()[begin:], START_S, lambda: f"{self.name} serves nobody")
        self.child()

    @property
    def parent(self) -> int:
        """The supervising process."""
        if self.process is None:
            raise ChurnError(f"{self.name} does not serve")
        return self.process.pid

    def child(self, *, other_than: int = 0) -> int:
        """Its worker's process, once it has bound."""

        def bound() -> int:
            found = [info.pid for info in list_workers(self.settings) if not info.starting and lives(info.pid)]
            return next((pid for pid in found if pid != other_than), 0)

        return until(bound, START_S, lambda: f"{self.name} has no worker: {self.words()}")

    @property
    def sessions(self) -> int:
        """Hosts that its worker has."""
        return sum(info.hosts for info in list_workers(self.settings))

    def words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def strike(self) -> None:
        """Kill its worker, and see that there is another."""
        child = self.child()
        os.kill(child, signal.SIGKILL)
        self.child(other_than=child)

    def renew(self) -> None:
        """Let it start its worker anew."""
        child = self.child()
        os.kill(self.parent, signal.SIGHUP)
        self.child(other_than=child)

    def drain(self) -> None:
        """Let it finish, end, and begin again."""
        self._command("worker", "drain")
        self.ended()
        self.start()

    def _command(self, *words: str) -> None:
        pipe = subprocess.PIPE
        command = self.box.popen([*UPX, *words], env=self.env, stdout=pipe, stderr=pipe, text=True)
        _, said = heard(command, DRAIN_S)
        if command.returncode:
            raise ChurnError(f"{self.name}: upx {' '.join(words)} ended with {command.returncode}: {said}")

    def ended(self) -> None:
        """Its process has ended, with 0."""
        if self.process is not None and (status := self.process.wait(END_S)):
            raise ChurnError(f"{self.name} ended with {status}: {self.words()}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
        self.ended()


class Machine:
    """A client: its home and keys, and the commands that it runs at the host's end of the links."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.lab, self.home = lab, home
        self.env = {**os.environ, "UPX_HOME": str(home)}
        self.settings = Settings.from_env(self.env)
        self.keys = KeyRing(self.settings)

    def knows(self, box: Serving) -> None:
        address = f"tcp://{box.box.address}:{PORT}"
        Book(self.settings).add(Known(box.name, address, box.keys.public("server"), "nearest"))

    def up(self, picture: Path, out: Path, *words: str) -> subprocess.Popen[str]:
        """``upx up``, begun."""
        return self.lab.host_popen(
            [*UPX, "up", picture, "-b", "nearest", "-o", out, "--json", *words], env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


# glibc keeps up to 64 MB at the end of each arena, of which every thread may get one, and gives nothing of it back when
# it is asked to: half a gigabyte here, in which no leak is seen. So told, it keeps nothing of a picture's size, and has
# one arena: what many hold in part rises and falls by megabytes.
GIVE_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}


class LongLived:
    """The host that lives as long as the churn, and what it answers."""

    def __init__(self, client: Machine, words: Sequence[str]) -> None:
        program = Path(__file__).with_name("_churn_host.py")
        self.said = client.home / "host.log"
        with self.said.open("wb") as log:
            self.process = client.lab.host_popen(
                [sys.executable, program, client.home / "scratch", *words], env={**client.env, **GIVE_BACK}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def tell(self, **order: Any) -> None:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def ask(self, seconds: float, **order: Any) -> Any:
        """The answer to an order; ChurnError where none comes."""
        self.tell(**order)
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(TELL_S)
            raise ChurnError(f"the host does not answer {order}: {self.said.read_text()[-20_000:]}") from None
        if not line:
            raise ChurnError(f"the host has ended: {self.said.read_text()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Let it close its Upscalers and end; ChurnError where it does not, or not well."""
        self.process.stdin.close()
        if status := self.process.wait(END_S):
            raise ChurnError(f"the host ended with {status}: {self.said.read_text()[-3000:]}")


def _as_listed(address: str, port: int) -> str:
    """An address as the kernel lists connections: bytes from the last to the first."""
    return f"{socket.inet_aton(address)[::-1].hex()}:{port:04x}".upper()


class World:
    """All of them; its boxes serve at once. The environment is built before, where there is a network."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        (folder / "built").mkdir()
        built = Settings.from_env({**os.environ, "UPX_HOME": str(folder / "built")})
        with Host(built) as host:
            host.setup("nearest")
        self.client, self.stranger = (Machine(lab, self._home(name, built)) for name in ("laptop", "stranger"))
        self.boxes = [
            Serving(name, box, self._home(name, built)) for name, box in zip(LINKS, lab.boxes, strict=True)
        ]  # fmt: skip
        for box in self.boxes:
            for machine in (self.client, self.stranger):
                machine.knows(box)
            self.allow(box)
            box.start()
        self.heal()

    def _home(self, name: str, built: Settings) -> Path:
        data = self.folder / name / "data"
        data.mkdir(parents=True)
        (data / "venvs").symlink_to(built.venvs_dir, target_is_directory=True)
        return self.folder / name

    def allow(self, box: Serving) -> None:
        box.keys.allow("laptop", self.client.keys.public("client"))

    def heal(self) -> list[str]:
        """Every link as it was, every key allowed, every box there; those that had ended, which none may by itself."""
        gone = []
        for box in self.boxes:
            box.box.link.heal()
            box.box.link.become(LINKS[box.name])
            self.allow(box)
            if lives(box.parent):
                continue
            gone.append(f"{box.name} has ended by itself: {box.words()}")
            box.start()
        return gone

    def going_on(self, host: LongLived) -> str:
        """What goes on beside the long-lived host, its workers, the boxes and theirs; nothing where all is still."""
        own = {host.process.pid, *children(host.process.pid)}
        if extra := [pid for pid in self.lab.host.pids() if pid not in own]:
            return f"processes {extra} at the client"
        for box in self.boxes:
            if len(pids := box.box.pids()) != 2:
                return f"processes {pids} at {box.name}"
        return ""

    def missing(self, host: LongLived) -> list[str]:
        """The boxes that the long-lived host, at rest and alone at its end, has no open connection to."""
        tables = [Path(f"/proc/{host.process.pid}/net/{table}") for table in ("tcp", "tcp6")]
        rows = [row.split() for table in tables for row in table.read_text().splitlines()[1:]]
        # A socket for both kinds of addresses shows one of IPv4 as the end of one of IPv6.
        open_to = {remote[-len("0201570A:1DB0") :] for _, _, remote, state, *_ in rows if state == ESTABLISHED}
        return [box.name for box in self.boxes if _as_listed(box.box.address, PORT) not in open_to]

    def files(self) -> dict[str, int]:
        """How many files each machine keeps, its environments left out."""
        return {
            home.name: sum(len(names) for _, _, names in os.walk(home))
            for home in (self.client.home, self.stranger.home, *(box.home for box in self.boxes))
        }
