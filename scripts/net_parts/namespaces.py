"""Network namespaces: made and removed by name, entered by a thread, and what runs inside one. Linux, as root.

A lab names its namespaces after itself, and holds a lock on a file of that name: what a killed run left is found by
the lock that nobody holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SPACES = Path("/run/netns")
LOCKS = Path("/run/upx-net")
PREFIX = "upx-"
CLONE_NEWNET = 0x40000000
WAIT_S = 5.0
# No traffic of the kernel's own, and no connection that profits from what another one learned of the link.
QUIET = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/tcp_no_metrics_save": "1",
}


class LabError(RuntimeError):
    """The machine cannot do what the lab needs, or one of its commands failed; the message says which."""


def command(*words: object) -> str:
    """Standard output of a command that has to succeed."""
    try:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        raise LabError(f"{words[0]} cannot be run: {error}") from error
    if done.returncode:
        raise LabError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def make(name: str) -> None:
    """A namespace with nothing but its own loopback."""
    command("ip", "netns", "add", name)
    command("ip", "-n", name, "link", "set", "lo", "up")
    for setting, value in QUIET.items():
        set_sysctl(name, setting, value)


def remove(name: str) -> None:
    """End what still runs inside, as when a box loses its power, and forget the namespace."""
    deadline = time.monotonic() + WAIT_S
    while (left := inhabitants(name)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    command("ip", "netns", "del", name)


def inhabitants(name: str) -> list[int]:
    """The processes inside, less this one; one that has ended and was not waited for has none."""
    wanted, found = (SPACES / name).stat(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                space = (entry / "ns" / "net").stat()
                if (space.st_dev, space.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread, and the processes and threads that it starts meanwhile, in the namespace."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, (SPACES / name).open("rb") as away:
        _enter(away)
        try:
            yield
        finally:
            _enter(home)


def _enter(space: IO[bytes]) -> None:
    # os.setns comes with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space.fileno(), CLONE_NEWNET):
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


def set_sysctl(name: str, setting: str, value: str) -> None:
    """Below net/, in the namespace alone."""
    with inside(name):
        (Path("/proc/sys/net") / setting).write_text(value)


def sysctl(name: str, setting: str) -> str:
    with inside(name):
        return (Path("/proc/sys/net") / setting).read_text().strip()


@contextlib.contextmanager
def named_lab() -> Iterator[str]:
    """A name that no other lab has, with the lock that says that it lives; sweeps up after killed ones first."""
    with contextlib.ExitStack() as stack:
        with _alone():
            sweep()
            name = PREFIX + secrets.token_hex(3)
            lock = stack.enter_context((LOCKS / name).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        stack.callback((LOCKS / name).unlink, missing_ok=True)
        yield name


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """No other process makes or sweeps meanwhile: a lock file is never seen between its making and its locking."""
    LOCKS.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (LOCKS / "sweep").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep() -> list[str]:
    """Remove what labs left whose process was killed; the namespaces removed."""
    swept = []
    for path in LOCKS.glob(f"{PREFIX}*"):
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            left = [space.name for space in SPACES.glob(f"{path.name}-*")]
            for name in left:
                remove(name)
            swept += left
            path.unlink()
    return swept
