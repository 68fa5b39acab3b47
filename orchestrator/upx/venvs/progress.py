"""What uv's lines say of a build's progress."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from upx.venvs.venv import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DOWNLOADING = re.compile(r"Downloading (\S+) \(([\d.]+) ?(B|[KMGT]iB)\)")
_DOWNLOADED = re.compile(r"Downloaded (\S+)")
_COUNTED = re.compile(r"(Resolved|Prepared|Installed) (\d+) packages?")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Downloads so far: name -> bytes, of those announced and of those complete.

    uv announces large files only, and without a terminal tells their beginning and end; so ``done`` grows in
    steps of whole files.
    """

    announced: Mapping[str, int] = field(default_factory=dict[str, int])
    complete: frozenset[str] = frozenset()
    packages: int | None = None

    def progress(self, message: str) -> Progress:
        """The state of the downloads, in bytes."""
        done = sum(size for name, size in self.announced.items() if name in self.complete)
        return Progress("download", message, done, sum(self.announced.values()), "bytes")


def read_line(state: Fetched, line: str) -> tuple[Fetched, Progress | None]:
    """The state after one line of uv's output, and what to report, if anything."""
    if match := _DOWNLOADING.search(line):
        size = int(float(match[2]) * _UNITS[match[3]])
        state = replace(state, announced={**state.announced, match[1]: size})
        return state, state.progress(f"fetching {match[1]}")
    if match := _DOWNLOADED.search(line):
        state = replace(state, complete=state.complete | {match[1]})
        return state, state.progress(f"fetched {match[1]}")
    if match := _COUNTED.search(line):
        return _counted(state, match[1], int(match[2]))
    return state, None


def _counted(state: Fetched, verb: str, count: int) -> tuple[Fetched, Progress]:
    if verb == "Resolved":
        state = replace(state, packages=count)
        return state, Progress("resolve", f"{count} packages", 0, count, "packages")
    done = count if verb == "Installed" else None
    message = "installed" if verb == "Installed" else "linking files"
    return state, Progress("install", f"{message}: {count} packages", done, state.packages, "packages")
