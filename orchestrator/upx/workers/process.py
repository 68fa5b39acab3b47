"""One worker's process, started by this host or found: spawn it, see it end, signal it, reap it.

Signals go through a pidfd where the system has one, so they never meet a stranger that was given the same pid.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upx.config import IS_WINDOWS
from upx.workers import machine
from upx.workers.windows import Job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from upx.workers.logs import LogFile
    from upx.workers.plan import WorkerPlan

# Shares of the time for an end after which SIGTERM and SIGKILL follow.
LADDER = (0.2, 0.4)
_job = Job()


@dataclass(slots=True)
class Process:
    """A worker's process. ``child`` is None for one that another command started."""

    pid: int
    ticks: int
    pidfd: int = -1
    tie: int = -1
    child: subprocess.Popen[bytes] | None = None
    log: LogFile | None = None
    _ended: str = field(default="")

    @property
    def ours(self) -> bool:
        """Whether this host started it."""
        return self.child is not None

    def ended(self) -> str:
        """How it ended ("exit status 3", "killed by SIGKILL"), empty while it runs. Reaps a child."""
        if not self._ended:
            self._ended = self._look()
        return self._ended

    @property
    def status(self) -> int | None:
        """A child's exit status, negative for a signal; None while it runs, and for one that is no child."""
        return self.child.returncode if self.child is not None else None

    def _look(self) -> str:
        if self.child is not None:
            status = self.child.poll()
            return "" if status is None else _words(status)
        if self.pidfd >= 0:
            return "ended" if _readable(self.pidfd) else ""
        gone = not machine.pid_lives(self.pid) or machine.start_ticks(self.pid) != self.ticks
        return "ended" if gone else ""

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens to one that has ended."""
        if self.ended():
            return
        try:
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.child is not None:
                self.child.send_signal(number)
            elif machine.start_ticks(self.pid) == self.ticks:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return  # It ended in between.

    def kill(self) -> None:
        """End it at once."""
        if IS_WINDOWS and self.child is not None:
            self.child.kill()
        else:
            self.signal(signal.SIGKILL)

    def urge(self, share: float) -> None:
        """Make it end, by so much as ``share`` of the time for that is over (0..1): a word, SIGTERM, SIGKILL.

        A tile that takes minutes must not keep its host from ending.
        """
        if share > LADDER[1]:
            self.kill()
        elif share > LADDER[0]:
            self.signal(signal.SIGTERM)

    def release(self) -> None:
        """Give the descriptors back. A tied worker that lives ends by that; any other lives on."""
        for fd in (self.pidfd, self.tie):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.tie = -1
        if self.child is not None and self.child.poll() is None:
            # It lives on by intent: without a status, Popen's destructor would warn of a forgotten child.
            self.child.returncode = 0
            _reap_later(self.pid)
        self.child = None


def _words(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _readable(fd: int) -> bool:
    import select

    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _pidfd(pid: int) -> int:
    if sys.platform != "linux":
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1  # A kernel before 5.3, or a sandbox that forbids it; a poll does.


def spawn(plan: WorkerPlan, options: str, *, fds: Sequence[int], tie: int, log: LogFile, log_fd: int) -> Process:
    """Start a worker. ``fds`` are inherited; ``tie`` is the writing end that this host keeps, -1 for none.

    OSError where the interpreter cannot be started. The calling thread must live as long as this host's use of a
    tied worker: the kernel's parent-death signal is the thread's.
    """
    command = [str(plan.python), "-I", str(plan.stage / "boot.py"), options]
    child = _popen(command, plan.stage, dict(plan.environ), fds, log_fd)
    if IS_WINDOWS and plan.tied:
        _job.add(int(getattr(child, "_handle")))  # noqa: B009  Popen shows the handle nowhere else
    return Process(child.pid, machine.start_ticks(child.pid), _pidfd(child.pid), tie, child, log)


def _popen(
    command: list[str], folder: Path, environ: dict[str, str], fds: Sequence[int], log_fd: int
) -> subprocess.Popen[bytes]:
    if IS_WINDOWS:
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            creationflags=flags,
        )
    # A session of its own: Ctrl-C and a closing terminal are for the host, which tells its workers itself.
    return subprocess.Popen(
        command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, pass_fds=tuple(fds),
        start_new_session=True,
    )  # fmt: skip


def adopt(pid: int, ticks: int) -> Process | None:
    """Watch a process that another command started; None where it is gone or another has its pid."""
    if pid <= 0:
        return None
    pidfd = _pidfd(pid)
    # Compared after the pidfd is open: from here on the pid cannot become another's unseen.
    if machine.start_ticks(pid) == ticks and (ticks or machine.pid_lives(pid)):
        return Process(pid, ticks, pidfd)
    if pidfd >= 0:
        os.close(pidfd)
    return None


def _reap_later(pid: int) -> None:
    """Collect the exit status of a child that outlives its pool, whenever it ends: nothing is left a zombie."""

    def wait() -> None:
        with suppress(ChildProcessError):  # somebody else's SIGCHLD handler was faster
            os.waitpid(pid, 0)

    if not IS_WINDOWS:
        threading.Thread(target=wait, name=f"upx-reap-{pid}", daemon=True).start()
