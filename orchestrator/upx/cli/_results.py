"""What the verbs return: one frozen class a kind, printed by the renderer or sent as a JSON record.

The keys of a record are the fields of its class; ``schema`` changes when one is renamed or removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Version:
    """``upx --version``; ``protocol`` is the wire's version."""

    KIND: ClassVar[str] = "version"
    version: str
    protocol: str
    python: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command ended; ``code`` names the error's class, ``exit_code`` is the process's."""

    KIND: ClassVar[str] = "error"
    code: str
    message: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The last record of ``upx up``: pictures by status."""

    KIND: ClassVar[str] = "summary"
    done: int
    skipped: int
    failed: int
    seconds: float
    exit_code: int


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One line of ``upx backends``; ``env`` is its environment's folder, None until it is built.

    ``purpose``: "upscaler", "utility" (serves upx itself) or "weights" (kept, not run by this version).
    """

    KIND: ClassVar[str] = "backend"
    name: str
    title: str
    default_model: str
    scales: tuple[int, ...]
    models: tuple[str, ...]
    devices: tuple[str, ...]
    env: Path | None
    purpose: str = "upscaler"


@dataclass(frozen=True, slots=True)
class BackendProblem:
    """A backend whose manifest cannot be used."""

    KIND: ClassVar[str] = "backend_problem"
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of a backend; ``restricted`` asks for ``--accept-licence``."""

    name: str
    scale: int
    title: str
    kind: str
    licence: str
    licence_url: str
    restricted: bool


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One ``--set NAME=VALUE`` of a backend."""

    name: str
    kind: str
    default: float | str
    minimum: float | None
    maximum: float | None
    choices: tuple[float | str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """All of one backend; ``tile`` and ``overlap`` in input pixels."""

    KIND: ClassVar[str] = "backend_info"
    name: str
    title: str
    description: str
    homepage: str
    folder: Path
    aliases: tuple[str, ...]
    default_model: str
    models: tuple[ModelInfo, ...]
    parameters: tuple[ParameterInfo, ...]
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    tile: int
    overlap: int
    stitch: str
    env: Path | None
    purpose: str = "upscaler"


@dataclass(frozen=True, slots=True)
class EnvReady:
    """``upx setup``: one environment that is whole; ``mended`` counts the files that a repair replaced."""

    KIND: ClassVar[str] = "env"
    backend: str
    folder: Path
    flavour: str
    fingerprint: str
    seconds: float
    mended: int = 0
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class EnvRow:
    """One line of ``upx env list``; ``size`` in bytes."""

    KIND: ClassVar[str] = "env_entry"
    name: str
    folder: Path
    state: str
    in_use: bool
    superseded: bool
    size: int
    flavour: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """``upx env prune``; ``freed`` in bytes."""

    KIND: ClassVar[str] = "pruned"
    removed: tuple[Path, ...]
    kept_in_use: tuple[Path, ...]
    freed: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """One worker that ``upx stop`` ended, or could not."""

    KIND: ClassVar[str] = "stopped"
    id: str
    backend: str
    pid: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Warm:
    """``upx warm``: a model that is loaded and waits; ``keep_alive`` in seconds, None for ever."""

    KIND: ClassVar[str] = "warm"
    backend: str
    model: str
    device: str
    precision: str
    keep_alive: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``upx doctor``; ``status`` is ok, warn or fail, ``hint`` the next step of the last two."""

    KIND: ClassVar[str] = "check"
    name: str
    status: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One setting that ``upx bench`` measured, warm: megapixels are of the input, stages are shares of 1."""

    KIND: ClassVar[str] = "bench"
    backend: str
    model: str
    workers: int
    tile: int
    width: int
    height: int
    seconds: float
    tiles_per_second: float
    megapixels_per_second: float
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A public key of this machine, in hexadecimal; ``which``: "client" or "server"."""

    KIND: ClassVar[str] = "key"
    which: str
    key: str


@dataclass(frozen=True, slots=True)
class AllowedKey:
    """A client's public key on this machine; ``state``: "allowed" or "revoked"."""

    KIND: ClassVar[str] = "allowed_key"
    name: str
    key: str
    state: str


@dataclass(frozen=True, slots=True)
class BoxRow:
    """A machine that serves this one; ``backend`` is empty until it was reached once."""

    KIND: ClassVar[str] = "box"
    name: str
    endpoint: str
    backend: str
    key: str
    state: str = "known"


@dataclass(frozen=True, slots=True)
class BoxTest:
    """What one worker of a box says. ``latency_ms``: median of there and back; ``mbit_per_second``: each way.

    ``memory`` and ``memory_free`` of the device in bytes, 0 where unknown.
    """

    KIND: ClassVar[str] = "box_test"
    name: str
    endpoint: str
    backend: str
    device: str
    device_name: str
    protocol: str
    latency_ms: float
    mbit_per_second: float
    memory: int
    memory_free: int
    hosts: int
    queued: int
    models: tuple[str, ...]
