"""The words of environments: a built Venv, its Damage, a build's Progress, and where files lie in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.config import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from upx.config import Settings

DamageKind: TypeAlias = Literal["missing", "size", "hash"]
Stage: TypeAlias = Literal["wait", "python", "resolve", "download", "install", "check", "done"]
SCRATCH_PREFIX = ".building-"
LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True)
class Venv:
    """A whole environment; its folder never changes.

    ``python`` starts a worker. ``fingerprint`` names these bytes and no others: a repaired environment has
    another. ``flavour`` is resolved (``cpu`` or ``default``). ``versions``: package -> version, as the
    environment's own interpreter reported them.
    """

    folder: Path
    python: Path
    site_packages: Path
    fingerprint: str
    flavour: str
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not what was installed; ``package`` is empty for files of the virtualenv itself."""

    path: Path
    package: str
    kind: DamageKind


@dataclass(frozen=True, slots=True)
class SiblingDamage:
    """Damage that another environment shares through uv's cache; ``name`` is its EnvSpec's."""

    name: str
    folder: Path
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did.

    ``damage`` is what the old environment had (empty: nothing was wrong, and ``venv`` is the old one);
    ``siblings`` still are damaged. ``cache_cleaned`` is False when uv's cache was busy and may still hold the
    damaged packages.
    """

    venv: Venv
    damage: tuple[Damage, ...] = ()
    siblings: tuple[SiblingDamage, ...] = ()
    cache_cleaned: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a build; ``done`` and ``total`` in ``unit``, None where they are not known."""

    stage: Stage
    message: str
    done: int | None = None
    total: int | None = None
    unit: Literal["", "bytes", "packages"] = ""


Report: TypeAlias = "Callable[[Progress], None]"


def no_report(_progress: Progress) -> None:
    """Report to nobody."""


def python_path(folder: Path, *, windows: bool = IS_WINDOWS) -> Path:
    """Where the interpreter of the virtualenv in ``folder`` lies."""
    return folder / "Scripts" / "python.exe" if windows else folder / "bin" / "python"


def site_packages_path(folder: Path, *, windows: bool = IS_WINDOWS) -> Path:
    """Where its packages lie; FileNotFoundError when it holds none."""
    if windows:
        return folder / "Lib" / "site-packages"
    for path in sorted(folder.glob("lib/python*/site-packages")):
        return path
    raise FileNotFoundError(folder / "lib" / "python*" / "site-packages")


def use_lock_path(folder: Path) -> Path:
    """The lock that users of an environment share; beside it, because the folder never changes."""
    return folder.with_name(folder.name + LOCK_SUFFIX)


def build_lock_path(settings: Settings, name: str) -> Path:
    """The lock under which environments of that name are built; never removed."""
    return settings.venvs_dir / f".{name}.build{LOCK_SUFFIX}"
