"""The registry of running workers: one locked file per worker, below the boot id.

A host creates the entry and locks it, the worker inherits the lock and fills the entry in once it has bound. Alive
means that the lock is held; everything in the file is information.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from upx import locks
from upx.config import IS_WINDOWS
from upx.workers import endpoints, machine

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from upx.config import Settings

SCHEMA = 1
LARGEST = 65_536
LARGEST_NUMBER, LARGEST_PID = 2**53, 2**31
OLD_BOOT_S = 3600.0
ENTRY_NAME = re.compile(r"^(?P<identity>[0-9a-f]{8,64})-(?P<ordinal>\d{1,4})\.json$")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker as its entry shows it. ``endpoint`` is empty while it starts; times in seconds since the epoch.

    ``idle``: seconds without a host, 0 while it has one. ``memory``: resident bytes, 0 where unknown. ``inode``
    tells an entry from a later one of the same name, unless that was given it too. ``box``: the name under which it
    serves a network, if it does. ``planned``: while it starts, the endpoint that it was told to bind.
    """

    path: Path
    inode: int
    identity: str
    ordinal: int
    alive: bool
    pid: int = 0
    start_ticks: int = 0
    backend: str = ""
    model: str = ""
    device: str = ""
    endpoint: str = ""
    curve_public: str = ""
    tied: bool = True
    hosts: int = 0
    idle: float = 0.0
    idle_s: float | None = None
    started: float = 0.0
    memory: int = 0
    box: str = ""
    planned: str = ""

    @property
    def nonce(self) -> int:
        """A number that only this worker has, from its start on; on the loopback the inode, which others may get."""
        return endpoints.nonce(self.endpoint or self.planned) or self.inode

    @property
    def name(self) -> str:
        """What people call it: "span-1a2b3c4d-0"."""
        return worker_name(self.backend, self.identity, self.ordinal)

    @property
    def starting(self) -> bool:
        """Whether it has not bound yet."""
        return not self.endpoint


def worker_name(backend: str, identity: str, ordinal: int) -> str:
    """The name of a worker in reports, logs and ``upx ps``."""
    return f"{backend or 'worker'}-{identity[:8]}-{ordinal}"


def folder(settings: Settings) -> Path:
    """Where this boot's entries lie; made where it is missing."""
    path = settings.workers_dir / machine.boot_id()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextmanager
def spawn_lock(settings: Settings, identity: str) -> Generator[bool]:
    """The lock under which workers of an identity are looked for and started; yields False while another has it."""
    lock = locks.try_lock(folder(settings) / f"{identity}.lock")
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.close()


def entries(settings: Settings, identity: str) -> list[WorkerInfo]:
    """The living workers of an identity, by ordinal; dead ones are removed. Only under the spawn lock."""
    found: list[WorkerInfo] = []
    for path in folder(settings).glob(f"{identity}-*.json"):
        info = read(path)
        if info is not None and info.alive:
            found.append(info)
        elif info is not None:
            discard(info)
    return sorted(found, key=lambda info: info.ordinal)


def create(
    settings: Settings, identity: str, ordinal: int, *, backend: str, endpoint: str, tied: bool
) -> tuple[int, Path]:
    """A new locked entry that says "starting": its descriptor and path. Only under the spawn lock.

    FileExistsError where the ordinal is taken.
    """
    path = folder(settings) / f"{identity}-{ordinal}.json"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if not locks.take(fd):
        # Somebody who sweeps looks at it this very moment, with the shared lock.
        os.close(fd)
        path.unlink()
        raise FileExistsError(path)
    stub = {
        "schema": SCHEMA,
        "identity": identity,
        "backend": backend,
        "tied": tied,
        "endpoint": "",
        "planned": endpoint,
    }
    try:
        os.write(fd, json.dumps(stub).encode())
    except OSError:
        os.close(fd)
        path.unlink()
        raise
    return fd, path


def read(path: Path) -> WorkerInfo | None:
    """What an entry says; None where there is none. One that cannot be read counts as "starting"."""
    match = ENTRY_NAME.match(path.name)
    try:
        inode = path.stat().st_ino
        with path.open("rb") as file:
            content = file.read(LARGEST)
    except OSError:  # none, or something that is no file of ours
        return None
    if match is None:
        return None
    fields = _fields(content)
    return _info(path, inode, match["identity"], int(match["ordinal"]), fields)


def _fields(content: bytes) -> dict[str, Any]:
    try:
        fields: Any = json.loads(content)
    except ValueError:
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _info(path: Path, inode: int, identity: str, ordinal: int, fields: dict[str, Any]) -> WorkerInfo:
    pid, hosts = _number(fields, "pid", below=LARGEST_PID), _number(fields, "hosts")
    last_used = _seconds(fields, "last_used")
    return WorkerInfo(
        path=path,
        inode=inode,
        identity=identity,
        ordinal=ordinal,
        alive=_alive(path, pid),
        pid=pid,
        start_ticks=_number(fields, "start_ticks"),
        backend=_text(fields, "backend"),
        model=_text(fields, "model"),
        device=_text(fields, "device"),
        endpoint=_text(fields, "endpoint"),
        curve_public=_text(fields, "curve_public"),
        box=_text(fields, "box"),
        planned=_text(fields, "planned"),
        tied=fields.get("tied") is not False,
        hosts=hosts,
        idle=0.0 if hosts or last_used is None else max(0.0, time.time() - last_used),
        idle_s=_seconds(fields, "idle_s"),
        started=_seconds(fields, "started") or 0.0,
        memory=machine.resident_bytes(pid) if pid else 0,
    )


def _alive(path: Path, pid: int) -> bool:
    if IS_WINDOWS:
        # Locks are not inherited there; an entry without a pid is being made.
        return not pid or machine.pid_lives(pid)
    return locks.is_locked(path, shared=True)


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _number(fields: dict[str, Any], key: str, *, below: int = LARGEST_NUMBER) -> int:
    """A count or a process id; 0 for anything that can be neither."""
    value = fields.get(key)
    return value if isinstance(value, int) and 0 <= value < below else 0


def _seconds(fields: dict[str, Any], key: str) -> float | None:
    value = fields.get(key)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < LARGEST_NUMBER else None


def present(path: Path, inode: int) -> bool:
    """Whether this very entry is still there: a worker that leaves removes it first."""
    try:
        return path.stat().st_ino == inode
    except FileNotFoundError:
        return False


def is_its(info: WorkerInfo) -> bool:
    """Whether the entry is still this worker's, which may not have had a process yet when it was read.

    A successor's may have not only its name but its inode too, which file systems give to the next file.
    """
    now = read(info.path)
    return now is not None and now.inode == info.inode and info.pid in {0, now.pid}


def discard(info: WorkerInfo) -> None:
    """Remove the entry and the socket of a dead worker."""
    # Without a process it may be that of a successor that has none yet either.
    if is_its(info) and (info.pid or not _alive(info.path, info.pid)):
        info.path.unlink(missing_ok=True)
    endpoints.remove_socket(info.endpoint or info.planned)


def list_workers(settings: Settings) -> list[WorkerInfo]:
    """Every living worker of this boot, oldest first; what the dead left behind is swept."""
    if not settings.workers_dir.is_dir():
        return []
    found: list[WorkerInfo] = []
    for path in sorted(folder(settings).glob("*-*.json")):
        info = read(path)
        if info is not None and info.alive:
            found.append(info)
        elif info is not None:
            _sweep(settings, info)
    _sweep_boots(settings)
    return sorted(found, key=lambda info: (info.started, info.name))


def _sweep(settings: Settings, info: WorkerInfo) -> None:
    """Remove a dead entry, unless its spawn lock says that it may be one in the making."""
    with spawn_lock(settings, info.identity) as held:
        again = read(info.path) if held else None
        if again is not None and not again.alive:
            discard(again)


def _sweep_boots(settings: Settings) -> None:
    """Remove entries of other boots: nobody lives there, unless a shared home belongs to another machine too."""
    for other in settings.workers_dir.iterdir():
        if other.name == machine.boot_id() or not other.is_dir():
            continue
        files = list(other.iterdir())
        fresh = any(time.time() - file.stat().st_mtime < OLD_BOOT_S for file in [other, *files])
        if not fresh and not any(locks.is_locked(file, shared=True) for file in files):
            shutil.rmtree(other, ignore_errors=True)
