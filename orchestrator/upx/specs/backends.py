"""A backend as its manifest describes it: parameters, environment, models and how they are run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.specs.pictures import ColourSpec, SizeRequirements, TilingSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from upx.specs.weights import ModelSpec

ParameterKind: TypeAlias = Literal["int", "float", "bool", "str"]
ParameterValue: TypeAlias = int | float | bool | str


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One ``--set KEY=VALUE`` of a backend."""

    name: str
    kind: ParameterKind
    default: ParameterValue
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[ParameterValue, ...] = ()
    # "load": a worker is loaded with it, another value needs another load; "job": travels with every tile.
    applies: Literal["load", "job"] = "job"


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """What a virtualenv is built from. Two specs with the same bytes and facts build the same environment.

    ``lock`` and ``cpu_lock`` are requirement files with hashes; ``cpu_lock`` is None where there is no CPU
    flavour. ``imports`` are the modules that the import probe loads in the new interpreter. ``lock`` is None
    for a backend that runs in any Python with the protocol's three packages.
    """

    name: str
    lock: Path
    python: str = "3.11"
    cpu_lock: Path | None = None
    imports: tuple[str, ...] = ("msgpack", "zmq", "numpy")
    # Nothing in it uses a GPU: the CPU flavour is meant wherever there is one.
    cpu_only: bool = False


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One folder with a ``backend.toml``, read without importing anything of it."""

    name: str
    title: str
    folder: Path
    # Dotted name of the folder's package, under which it is staged ("upx_backends.span").
    module: str
    env: EnvSpec
    models: tuple[ModelSpec, ...]
    default_model: str
    aliases: tuple[str, ...] = ()
    parameters: tuple[ParameterSpec, ...] = ()
    tiling: TilingSpec = field(default_factory=TilingSpec)
    size: SizeRequirements = field(default_factory=SizeRequirements)
    # None: the model keeps colours by itself.
    colour: ColourSpec | None = None
    # Environment of the worker process, on top of the allow-list.
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32",)
    # Threads of one worker on a CPU, and workers by default: 0 means "as many as the cores allow".
    threads: int = 0
    workers: int = 1
    # Tiles of one batch.
    batch: int = 1
    description: str = ""
    homepage: str = ""
    # "upscaler" turns pictures into larger ones; "utility" serves upx itself; "weights" is a family whose files are
    # described, fetched and verified here, and which no worker of this version runs.
    kind: Literal["upscaler", "utility", "weights"] = "upscaler"

    def model(self, name: str) -> ModelSpec:
        """The model of that name; KeyError where there is none."""
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(name)
