"""Run one child to its end, line by line, and leave none behind."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from upx.config import IS_WINDOWS
from upx.errors import EnvBuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

TAIL_LINES = 400
_KILL_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended: ``code`` is negative for a signal; ``log`` its last lines, both streams together."""

    code: int
    log: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a child runs: its whole environment, its folder, and descriptors that it keeps open."""

    env: Mapping[str, str]
    cwd: Path
    keep: tuple[int, ...] = ()


def run(
    command: Sequence[str], where: Surroundings, *, timeout: float, on_line: Callable[[str], None] | None = None
) -> Outcome:
    """Run ``command`` in a process group of its own; whatever interrupts the wait ends the whole group.

    ``on_line`` gets each line without its end. EnvBuildError after ``timeout`` seconds.
    """
    child = _start(command, where)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
    reader.start()
    try:
        log = _follow(lines, deadline=time.monotonic() + timeout, on_line=on_line)
        code = child.wait(timeout=_KILL_WAIT_S)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        hint = "run it again with -v; a build of that length has usually lost its network"
        raise EnvBuildError(f"{command[0]} had not ended after {timeout:.0f} s", hint=hint) from error
    finally:
        _end(child)
        reader.join(timeout=_KILL_WAIT_S)
    return Outcome(code, log)


def _start(command: Sequence[str], where: Surroundings) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(where.env),
            cwd=where.cwd,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C reaches this process alone, which then ends the child in its own time.
            start_new_session=not IS_WINDOWS,
            pass_fds=() if IS_WINDOWS else where.keep,
        )
    except OSError as error:
        hint = "check that the file can be run; reinstall uv with `pip install --force-reinstall uv`"
        raise EnvBuildError(f"{command[0]} cannot be started: {error.strerror}", hint=hint) from error


def _read(stream: IO[str] | None, lines: queue.SimpleQueue[str | None]) -> None:
    if stream is not None:
        with stream:
            for line in stream:
                lines.put(line.rstrip())
    lines.put(None)


def _follow(lines: queue.SimpleQueue[str | None], *, deadline: float, on_line: Callable[[str], None] | None) -> str:
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty as error:
            raise TimeoutError from error
        if line is None:
            return "\n".join(tail)
        tail.append(line)
        if on_line is not None:
            on_line(line)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is not None:
        return
    if IS_WINDOWS:
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so the group is still ours
    child.wait(timeout=_KILL_WAIT_S)
