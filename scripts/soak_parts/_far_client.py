"""The client of a lane: its home, the boxes that it knows, and the processes that it starts at its end of the links."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import namespaces
from _processes import heard

from upx.config import Settings
from upx.remote.boxes import Book
from upx.remote.boxes import Box as Known
from upx.remote.keys import KeyRing
from upx.remote.visit import Visit, visit
from upx.workers import registry

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from _far_boxes import FarBox
    from lab import Lab

COMMAND_S, KILLED_S = 40.0, 10.0


class Client:
    """``home`` is its folder; outputs lie in ``work``, which holds nothing else."""

    def __init__(self, lab: Lab, home: Path, environ: Mapping[str, str]) -> None:
        self._lab, self.work, self._scratch = lab, home / "work", home / "scratch"
        self.work.mkdir(parents=True)
        self._scratch.mkdir()
        self._environ = {**environ, "UPX_HOME": str(home), "TMPDIR": str(self._scratch)}
        self._settings = Settings.from_env(self._environ)

    def add(self, box: FarBox) -> None:
        """Let each know the other."""
        box.ring.allow("laptop", KeyRing(self._settings).public("client"))
        Book(self._settings).add(Known(box.name, box.endpoint, box.ring.public("server"), "nearest"))

    @contextmanager
    def host(self, words: Sequence[str], said: Path) -> Generator[subprocess.Popen[bytes]]:
        """A command; what it says is added to a file. It has ended when the block ends."""
        with said.open("ab") as file:
            process = self._lab.host_popen(
                words, env=self._environ, cwd=self._scratch, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait(KILLED_S)

    def upx(self, *words: str) -> tuple[int, str, str]:
        """A short command: its exit code, and what it said."""
        process = self._lab.host_popen(
            [sys.executable, "-m", "upx", *words],
            env=self._environ, cwd=self._scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        out, err = heard(process, COMMAND_S)
        return process.returncode, out, err

    def visit(self, box: FarBox) -> Visit:
        """A host's look at a box."""
        with self._lab.enter_host():
            return visit(Book(self._settings).get(box.name), self._settings)

    def left(self) -> str:
        """Of its hosts: processes, workers, sockets and scratch files."""
        mine = f"UPX_HOME={self._environ['UPX_HOME']}".encode()
        pids = [pid for pid in namespaces.inhabitants(self._lab.host.space) if mine in _environ_of(pid)]
        workers = list(registry.folder(self._settings).glob("*.json"))
        folders = [folder for folder in (self._settings.runtime_dir, self._scratch) if folder is not None]
        files = [path for folder in folders for path in folder.rglob("*") if not path.is_dir()]
        found = {"processes": pids, "workers": workers, "files": files}
        return "; ".join(f"the client has {what} {which}" for what, which in found.items() if which)


def _environ_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        # It has ended meanwhile.
        return []
