"""What the verbs of ``upx models`` return: one frozen class a kind, as in ``upx.cli._results``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of ``upx models list``; ``trained`` says how.

    ``size`` in bytes, what is expected where it is not known, 0 where nobody can tell.

    ``installed``: every file is here; ``places``: where. ``runs``: this version has a worker for it.
    """

    KIND: ClassVar[str] = "model"
    name: str
    backend: str
    scale: int
    trained: str
    licence: str
    restricted: bool
    size: int
    installed: bool
    damaged: bool
    places: tuple[str, ...]
    runs: bool
    title: str


@dataclass(frozen=True, slots=True)
class LicenceInfo:
    """One licence of a model; ``restricted`` asks to be accepted before first use."""

    name: str
    link: str
    noncommercial: bool
    gated: bool
    restricted: bool
    note: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model.

    ``place`` is empty where it was not found; ``why`` says why that place won, or what each place lacked; ``hint`` how
    to bring it. ``sha256`` is of the file that was found, else what it has to be.
    """

    role: str
    file: str
    size: int
    size_is_exact: bool
    sha256: str
    unverified: str
    licence: str
    sources: tuple[str, ...]
    place: str
    damaged: bool
    path: Path | None
    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class ModelDetail:
    """``upx models info``; ``accepted``: when its licences were, empty where nobody had to or has."""

    KIND: ClassVar[str] = "model_info"
    name: str
    backend: str
    aliases: tuple[str, ...]
    title: str
    scale: int
    trained: str
    bundles: tuple[str, ...]
    runs: bool
    licences: tuple[LicenceInfo, ...]
    accepted: str
    pinned: bool
    files: tuple[ModelFile, ...]


@dataclass(frozen=True, slots=True)
class PullRow:
    """What ``upx models pull`` did for one model; ``code``, ``message`` and ``hint`` of one that failed."""

    KIND: ClassVar[str] = "pulled"
    model: str
    status: str
    files: tuple[str, ...]
    size: int
    seconds: float
    code: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file that ``upx models verify`` has read; ``status``: ok, unverified, missing or damaged."""

    KIND: ClassVar[str] = "verified"
    name: str
    file: str
    status: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One file that ``upx models import`` has put into the store; ``notes`` say what was done to it."""

    KIND: ClassVar[str] = "imported"
    source: Path
    model: str
    role: str
    path: Path
    sha256: str
    size: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One model of ``upx models du``: bytes of all its files, and of those that it shares with none."""

    KIND: ClassVar[str] = "usage"
    model: str
    size: int
    own: int
    last_used: float
    pinned: bool
    in_use: bool


@dataclass(frozen=True, slots=True)
class StoreTotal:
    """The whole store, in bytes; ``parts`` are unfinished downloads, ``cap`` is None without one."""

    KIND: ClassVar[str] = "store"
    folder: Path
    size: int
    parts: int
    cap: int | None


@dataclass(frozen=True, slots=True)
class Removed:
    """What ``upx models rm`` or ``gc`` removed, and which models it left; ``freed`` in bytes."""

    KIND: ClassVar[str] = "removed"
    models: tuple[str, ...]
    kept: tuple[str, ...]
    freed: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """A model that is never evicted, or may be again."""

    KIND: ClassVar[str] = "pin"
    model: str
    pinned: bool
