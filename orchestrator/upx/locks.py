"""Locks between processes: one file each, held as long as any process has its descriptor open.

flock where there is fcntl: a child that inherits the descriptor keeps the lock alive, whoever else dies. On
Windows byte ranges of msvcrt stand in for it: sharers take one byte each, an exclusive holder all of them; they
are not inherited, so a detached worker must take its own. Where the file system has no locks (NFS without lockd)
a lock is *not enforced*: environments still come out whole, only perhaps built twice, and are never removed; a
worker's registry entry, whose lock says that it lives, cannot be had there.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

from upx.config import IS_WINDOWS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Outcome: TypeAlias = Literal["held", "busy", "unsupported"]
SHARES = 64
# Far behind any content: on Windows a locked byte cannot be read by others.
FIRST_BYTE = 2**30
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class LockCalls(Protocol):
    """What an operating system offers: take the lock of an open descriptor, without waiting."""

    def take(self, fd: int, *, shared: bool) -> Outcome:
        """Take it, or say why not."""
        ...


class Flock:
    """The whole file, through fcntl.flock."""

    def take(self, fd: int, *, shared: bool) -> Outcome:
        """Take it, or say why not."""
        fcntl: Any = importlib.import_module("fcntl")
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return "busy"
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return "unsupported"
            raise
        return "held"


class ByteRanges:
    """SHARES bytes behind the file's content, through msvcrt.locking, which knows no sharing."""

    def __init__(self, msvcrt: Any = None) -> None:
        self._msvcrt = msvcrt

    def take(self, fd: int, *, shared: bool) -> Outcome:
        """Take it, or say why not."""
        if not shared:
            return "held" if self._take(fd, 0, SHARES) else "busy"
        first = os.getpid() % SHARES
        free = (self._take(fd, (first + step) % SHARES, 1) for step in range(SHARES))
        return "held" if any(free) else "busy"

    def _take(self, fd: int, start: int, length: int) -> bool:
        msvcrt: Any = self._msvcrt or importlib.import_module("msvcrt")
        os.lseek(fd, FIRST_BYTE + start, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, length)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
                return False
            raise
        return True


class HeldLock:
    """A lock until ``close``; ``fd`` may be passed on, and then lives until its last holder closes it.

    Only ever closed, never unlocked: an unlock would take it from the processes that inherited it.
    """

    def __init__(self, path: Path, fd: int, *, enforced: bool = True) -> None:
        self.path = path
        self.fd = fd
        self.enforced = enforced

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """Give it back and remove its file; for an exclusive holder."""
        if not IS_WINDOWS:
            self.path.unlink(missing_ok=True)
            self.close()
            return
        self.close()
        # An open file cannot be removed there; whoever has opened it meanwhile removes it later.
        with contextlib.suppress(PermissionError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def try_lock(path: Path, *, shared: bool = False, calls: LockCalls | None = None) -> HeldLock | None:
    """The lock of ``path``, whose file is made if need be; None when another has it."""
    calls = calls or _calls()
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = open_lock(path, shared=shared)
        try:
            outcome = calls.take(fd, shared=shared)
            current = outcome != "busy" and _is_at(fd, path)
        except BaseException:
            os.close(fd)
            raise
        if current:
            return HeldLock(path, fd, enforced=outcome == "held")
        os.close(fd)
        if outcome == "busy":
            return None
        # Its file was removed between open and lock: the next one is another file.


def take(fd: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file without waiting; False where another holds one that excludes it.

    OSError where the file system has no locks.
    """
    outcome = _calls().take(fd, shared=shared)
    if outcome == "unsupported":
        raise OSError(errno.ENOLCK, "this file system has no locks")
    return outcome == "held"


def open_lock(path: Path, *, shared: bool = False) -> int:
    """The lock's file, made if need be; to share a lock that somebody else owns, reading it is enough."""
    flags = getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except OSError as error:
        if not shared or error.errno not in _READ_ONLY:
            raise
    return os.open(path, os.O_RDONLY | flags)


def is_locked(path: Path, *, shared: bool = False) -> bool:
    """Whether anybody holds the lock of ``path``, or whether that cannot be told.

    ``shared``: by an exclusive holder; then two who ask at the same time do not take each other for one.
    """
    try:
        lock = try_lock(path, shared=shared) if path.is_file() else None
    except OSError as error:
        if error.errno in _READ_ONLY:  # somebody else's, whose users cannot be told
            return True
        raise
    if lock is None:
        return path.is_file()
    with lock:
        return not lock.enforced


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _calls() -> LockCalls:
    return ByteRanges() if IS_WINDOWS else Flock()
