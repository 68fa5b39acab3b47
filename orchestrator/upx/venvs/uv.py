"""Drive uv: its commands, the environment it runs in, and its failures as our errors."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upx.errors import EnvBuildError
from upx.venvs.failures import Context, Kind, classify, error_for
from upx.venvs.process import Outcome, Surroundings, run
from upx.venvs.progress import Fetched, read_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from upx.config import Settings
    from upx.venvs.venv import Report

# Gigabytes over a slow line take an hour; nothing honest takes three.
STEP_TIMEOUT_S = 3 * 3600.0
CLEAN_TIMEOUT_S = 20.0
# What another place may have.
_LACKING = frozenset({Kind.VERSION, Kind.OFFLINE})
_FOREIGN = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA")
_CPU_TORCH = re.compile(r"^torch==\S+\+cpu\b", re.MULTILINE)
_SECRET = re.compile(r"//[^/@\s]+@")


def find_uv(settings: Settings) -> Path:
    """The uv that came with upx, else one on the PATH; EnvBuildError when there is none."""
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        found = shutil.which("uv", path=settings.child_env.get("PATH", ""))
        if found is None:
            raise EnvBuildError("uv is not installed", hint="install it with `pip install uv`") from error
        return Path(found)


def clean_env(settings: Settings) -> dict[str, str]:
    """What a child may see: the user's allowed variables, without any that steer Python, pip or uv."""
    allowed = {**settings.child_env, **settings.network_env}
    return {name: value for name, value in allowed.items() if not name.upper().startswith(_FOREIGN)}


def uv_env(settings: Settings) -> dict[str, str]:
    """The clean environment with what the user chose for uv; an index may hold a password, so it is no argument."""
    chosen = {"NO_COLOR": "1"}
    if settings.uv_cache is not None:
        chosen["UV_CACHE_DIR"] = str(settings.uv_cache)
    if settings.index is not None:
        chosen["UV_DEFAULT_INDEX"] = settings.index
    return {**clean_env(settings), **chosen}


@dataclass(frozen=True, slots=True)
class Uv:
    """uv for one build. ``keep``: descriptors that it holds open, so that a lock lives as long as it does."""

    binary: Path
    env: Mapping[str, str]
    about: Context
    cwd: Path
    report: Report
    keep: tuple[int, ...] = ()
    wheelhouse: Path | None = None
    offline: bool = False

    def make_venv(self, folder: Path) -> None:
        """A relocatable virtualenv of the interpreter asked for; PythonMissingError and the network's."""
        downloads = ("--no-python-downloads",) if self.offline else ()
        options = ("--clear", "--relocatable", *downloads, "--python", self.about.request)
        self._do(["venv", *options, *self._network(), str(folder)])

    def sync(self, python: Path, locks: Sequence[Path]) -> None:
        """Make the virtualenv hold exactly what ``locks`` say; the wheelhouse is tried first, by itself."""
        command = ["pip", "sync", "--require-hashes", "--python", str(python), *map(str, locks)]
        # Without an index: a wheelhouse that holds everything needs no network, and no time-outs of one.
        alone = [] if self.wheelhouse is None else [["--no-index", *self._wheels()]]
        self._first_that_has_all(command, [*alone, *self._ways(locks)])

    def fetch(self, python: Path, lock: Path, *, cache: Path) -> None:
        """Add what ``lock`` holds, fetched into the empty folder ``cache``: nothing of uv's own cache is used.

        For packages that are damaged in uv's cache. Its ``--refresh`` re-reads an index but never a wheelhouse,
        and its ``--reinstall --offline`` links the damaged files again and says that all is well.
        """
        target = ["--python", str(python), "--requirement", str(lock), "--cache-dir", str(cache)]
        self._first_that_has_all(["pip", "install", "--no-deps", "--require-hashes", *target], self._ways([lock]))

    def clean(self, packages: Iterable[str]) -> bool:
        """Remove packages from uv's cache; False when it was busy for longer than a moment."""
        chosen = sorted(packages)
        if not chosen:
            return True
        try:
            return self._run(["cache", "clean", *chosen], timeout=CLEAN_TIMEOUT_S).code == 0
        except EnvBuildError:
            return False

    def version(self) -> str:
        """The version, as in ``0.13.8``."""
        words = self._run(["--version"], timeout=CLEAN_TIMEOUT_S).log.split()
        return words[1] if len(words) > 1 else "unknown"

    def _ways(self, locks: Iterable[Path]) -> list[list[str]]:
        """Where to look with an index: at the user's, then for a CPU build of torch at torch's own.

        The user's first: it may be a mirror that has the build, as a wheelhouse may, and torch's index, which uv then
        asks for torch alone, may be out of reach. A lock without such a build is never looked up there: the files
        under the same version differ from those of the plain index.
        """
        usual = [*self._wheels(), *self._network()]
        own = any(_CPU_TORCH.search(lock.read_text("utf-8")) for lock in locks)
        return [usual, [*usual, "--torch-backend", "cpu"]] if own else [usual]

    def _first_that_has_all(self, command: Sequence[str], ways: Sequence[Sequence[str]]) -> None:
        """Try each way until one has every version; the last one's failure is the error."""
        for way in ways[:-1]:
            outcome = self._run([*command, *way])
            if outcome.code == 0 or classify(outcome.log, code=outcome.code).kind not in _LACKING:
                self._judge(outcome)
                return
        self._do([*command, *ways[-1]])

    def _wheels(self) -> list[str]:
        return [] if self.wheelhouse is None else ["--find-links", str(self.wheelhouse)]

    def _network(self) -> list[str]:
        return ["--offline"] if self.offline else []

    def _do(self, arguments: Sequence[str]) -> None:
        self._judge(self._run(arguments))

    def _judge(self, outcome: Outcome) -> None:
        if outcome.code != 0:
            raise error_for(classify(outcome.log, code=outcome.code), self.about)

    def _run(self, arguments: Sequence[str], *, timeout: float = STEP_TIMEOUT_S) -> Outcome:
        state = Fetched()

        def on_line(line: str) -> None:
            nonlocal state
            state, progress = read_line(state, line)
            if progress is not None:
                self.report(progress)

        where = Surroundings(self.env, self.cwd, self.keep)
        outcome = run([str(self.binary), "--no-config", *arguments], where, timeout=timeout, on_line=on_line)
        return Outcome(outcome.code, _SECRET.sub("//***@", outcome.log))
