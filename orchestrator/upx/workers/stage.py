"""Stages: the folders of code that workers run, each named by the digest of what it holds.

A stage holds ``boot.py``, ``upx_protocol`` and one backend's package under its dotted name, nothing else; so host
and worker run the same bytes, and the host's site-packages stay out of the backend's environment.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import upx_protocol
from upx import locks
from upx.errors import ManifestError, WorkerStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.config import Settings

LEFT_OUT = frozenset({"__pycache__", "tests"})
LOCK = ".lock"
LEFTOVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A complete stage: its folder and the digest of its contents (SHA-256 in hex)."""

    folder: Path
    digest: str


def stage(backend_folder: Path, module_package: str, settings: Settings) -> Stage:
    """The stage of a backend, made where it is not there yet.

    ``module_package``: the dotted name of the package that the folder becomes, e.g. "upx_backends.span".
    ManifestError for a folder that cannot be read, WorkerStartError where the stage cannot be written.
    """
    files = _collected(backend_folder, module_package)
    digest = _digest(files)
    folder = settings.stage_dir / digest[:16]
    if not (folder / LOCK).is_file():
        try:
            _write(folder, files)
        except OSError as error:
            raise WorkerStartError(
                f"the worker's code cannot be staged: {error}", hint=f"check space and permissions of {folder.parent}"
            ) from error
    return Stage(folder, digest)


def digest(backend_folder: Path, module_package: str) -> str:
    """That of the stage that a backend would have now; ManifestError for a folder that cannot be read."""
    return _digest(_collected(backend_folder, module_package))


def _collected(backend_folder: Path, module_package: str) -> dict[str, bytes]:
    try:
        return _collect(backend_folder, module_package)
    except OSError as error:
        raise ManifestError(
            f"the backend's folder cannot be read: {error}", hint=f"check {backend_folder} and its permissions"
        ) from error


def _collect(backend_folder: Path, module_package: str) -> dict[str, bytes]:
    """Relative posix path to contents of everything that a stage holds."""
    protocol = Path(next(iter(upx_protocol.__path__)))
    *parents, _ = module_package.split(".")
    files = {"/".join([*parents[: i + 1], "__init__.py"]): b"" for i in range(len(parents))}
    target = module_package.replace(".", "/")
    for root, prefix in ((protocol, "upx_protocol"), (backend_folder, target)):
        files.update((f"{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes()) for path in _walk(root))
    files.setdefault(f"{target}/__init__.py", b"")
    files["boot.py"] = files["upx_protocol/boot.py"]
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in LEFT_OUT or entry.name.startswith(".") or entry.name.endswith((".pyc", ".md")):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def _digest(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{len(files[path])}\0".encode())
        digest.update(files[path])
    return digest.hexdigest()


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write beside, then rename; whoever is first wins, and both are the same."""
    beside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    try:
        for path, content in files.items():
            target = beside / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (beside / LOCK).touch(mode=0o600)
        try:
            beside.rename(folder)
        except OSError:
            if not (folder / LOCK).is_file():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def hold(folder: Path) -> int:
    """A descriptor with the shared lock of a stage, for a worker to inherit; -1 where it is being pruned."""
    if not (folder / LOCK).is_file():
        return -1
    try:
        fd = locks.open_lock(folder / LOCK, shared=True)
    except OSError:
        return -1
    if locks.take(fd, shared=True) and (folder / LOCK).is_file():
        return fd
    os.close(fd)
    return -1


def prune_stages(settings: Settings, *, keep: frozenset[str] = frozenset()) -> dict[Path, int]:
    """Remove every stage that no worker holds, but for the digests in ``keep``; what was removed, and its bytes."""
    removed: dict[Path, int] = {}
    if not settings.stage_dir.is_dir():
        return removed
    kept = {digest[:16] for digest in keep}
    for folder in sorted(settings.stage_dir.iterdir()):
        if folder.suffix == ".part":
            _remove_leftover(folder)
        elif folder.name not in kept:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if _remove(folder):
                removed[folder] = size
    return removed


def _remove_leftover(folder: Path) -> None:
    """What a killed command left half-written; one that is being written is younger."""
    if time.time() - folder.stat().st_mtime > LEFTOVER_S:
        shutil.rmtree(folder)


def _remove(folder: Path) -> bool:
    if not (folder / LOCK).is_file():
        return False
    lock = locks.try_lock(folder / LOCK)
    if lock is None:
        return False
    with lock:
        # Renamed first: a stage that is half gone must not be taken for a whole one.
        aside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
        folder.rename(aside)
        shutil.rmtree(aside)
    return True
