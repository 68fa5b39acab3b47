"""What lies in the folder of environments, and the removal of what nobody wants and nobody uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.errors import EnvBuildError, UsageError
from upx.locks import is_locked, try_lock
from upx.venvs.failures import own_errors
from upx.venvs.fingerprint import plan_for
from upx.venvs.marker import env_folders, find_marker, read_marker, split_name
from upx.venvs.scratch import Scratch, rename, sweep
from upx.venvs.venv import LOCK_SUFFIX, SCRATCH_PREFIX, use_lock_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from upx.config import Settings
    from upx.specs import EnvSpec
    from upx.venvs.marker import Marker
    from upx.venvs.venv import Venv

State: TypeAlias = Literal["complete", "incomplete", "building"]
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class EnvRecord:
    """One folder. ``size``: bytes on disk, shared ones included; ``venv`` is None unless it is complete.

    ``superseded``: another environment has taken its place, or its lock is no longer any EnvSpec's; False where
    the EnvSpec of that name is not known.
    """

    folder: Path
    name: str
    state: State
    in_use: bool
    superseded: bool
    size: int
    venv: Venv | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did. ``freed``: bytes that the disk got back: files that uv's cache still links free none."""

    removed: tuple[EnvRecord, ...]
    in_use: tuple[EnvRecord, ...]
    freed: int


@dataclass(frozen=True, slots=True)
class Stat:
    """One file's name on the disk: which bytes, how many names they have, how much they take."""

    identity: tuple[int, int]
    links: int
    size: int


def list_envs(settings: Settings, specs: Iterable[EnvSpec] = ()) -> list[EnvRecord]:
    """Every environment, whole or not, and every build folder; ``specs`` say which are still wanted."""
    root, known = settings.venvs_dir, {spec.name: spec for spec in specs}
    found = [_env_record(folder, settings, known) for folder in env_folders(root)]
    scratch = (path for path in sorted(root.glob(f"{SCRATCH_PREFIX}*")) if path.is_dir())
    return found + [_scratch_record(folder) for folder in scratch]


def prune(settings: Settings, specs: Iterable[EnvSpec] = (), *, unused: bool = False) -> Pruned:
    """Remove what is incomplete or superseded, with ``unused`` every environment, unless it is in use."""
    with own_errors("every backend", settings.venvs_dir):
        return _prune(settings, list_envs(settings, specs), unused=unused)


def _prune(settings: Settings, records: list[EnvRecord], *, unused: bool) -> Pruned:
    wanted_gone = [each for each in records if unused or each.superseded or each.state != "complete"]
    stats = {each.folder: list(_stats(each.folder)) for each in wanted_gone}
    swept = set(sweep(settings.venvs_dir))
    removed = [each for each in wanted_gone if each.folder in swept or _remove(each, settings.venvs_dir)]
    _remove_stray_locks(settings.venvs_dir)
    kept = tuple(each for each in wanted_gone if each not in removed)
    return Pruned(tuple(removed), kept, freed_bytes(stat for each in removed for stat in stats[each.folder]))


def freed_bytes(stats: Iterable[Stat]) -> int:
    """Bytes of the files all of whose names are among ``stats``."""
    left: dict[tuple[int, int], Stat] = {}
    for stat in stats:
        links = left[stat.identity].links if stat.identity in left else stat.links
        left[stat.identity] = Stat(stat.identity, links - 1, stat.size)
    return sum(stat.size for stat in left.values() if stat.links <= 0)


def _env_record(folder: Path, settings: Settings, known: dict[str, EnvSpec]) -> EnvRecord:
    marker = read_marker(folder)
    name, in_use, size = split_name(folder.name)[0], is_locked(use_lock_path(folder)), _size(folder)
    if marker is None or not (folder / marker.python).exists():
        return EnvRecord(folder, name, "incomplete", in_use, superseded=False, size=size)
    superseded = _is_superseded(folder, marker, settings, known.get(name))
    return EnvRecord(folder, name, "complete", in_use, superseded, size, marker.venv(folder))


def _scratch_record(folder: Path) -> EnvRecord:
    name = folder.name.removeprefix(SCRATCH_PREFIX).rpartition("-")[0]
    held = is_locked(folder.with_name(folder.name + LOCK_SUFFIX))
    return EnvRecord(folder, name, "building" if held else "incomplete", held, superseded=False, size=_size(folder))


def _is_superseded(folder: Path, marker: Marker, settings: Settings, spec: EnvSpec | None) -> bool:
    newest = find_marker(settings.venvs_dir, marker.name, marker.key)
    if newest is not None and newest[0] != folder:
        return True
    if spec is None:
        return False
    try:
        return plan_for(spec, settings, flavour=marker.flavour, extras=marker.extras).key != marker.key
    except (UsageError, EnvBuildError):  # its flavour, extra or lock is gone
        return True


def _remove(record: EnvRecord, root: Path) -> bool:
    if record.folder.name.startswith(SCRATCH_PREFIX):
        return False
    lock = try_lock(use_lock_path(record.folder))
    if lock is None:
        return False
    with lock:
        if not lock.enforced:
            return False
        # First out of sight, in one step; what a kill leaves of it, the next sweep takes.
        with Scratch(root, "removed") as scratch:
            gone = rename(record.folder, scratch.folder / record.folder.name)
        if gone:
            lock.discard()
    return gone


def _remove_stray_locks(root: Path) -> None:
    """Locks of environments that are gone: somebody asked for them after their removal."""
    for path in root.glob(f"*{LOCK_SUFFIX}"):
        if path.name.startswith(".") or path.with_name(path.name.removesuffix(LOCK_SUFFIX)).exists():
            continue
        lock = try_lock(path)
        if lock is not None:
            lock.discard()


def _size(folder: Path) -> int:
    return sum({stat.identity: stat.size for stat in _stats(folder)}.values())


def _stats(folder: Path) -> Iterator[Stat]:
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                found = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - ten thousands of files
            except FileNotFoundError:  # a build that goes on meanwhile
                continue
            size = found.st_blocks * _BLOCK if hasattr(found, "st_blocks") else found.st_size
            yield Stat((found.st_dev, found.st_ino), found.st_nlink, size)
