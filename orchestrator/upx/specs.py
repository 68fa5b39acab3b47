"""The plain data that siblings share: what a backend is, what its environment is, what a worker can do.

Frozen dataclasses without behaviour beyond derived properties; nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Stitch: TypeAlias = Literal["none", "crop", "feather"]
ParameterKind: TypeAlias = Literal["int", "float", "bool", "str"]
ParameterValue: TypeAlias = int | float | bool | str


@dataclass(frozen=True, slots=True)
class SizeRequirements:
    """What a network demands of its input's height and width, in pixels (spandrel's words and meaning).

    ``minimum``: the least side; ``multiple_of``: each side is a multiple of it; ``square``: height equals
    width; ``fixed``: exactly this side, 0 for any.
    """

    minimum: int = 1
    multiple_of: int = 1
    square: bool = False
    fixed: int = 0


@dataclass(frozen=True, slots=True)
class TilingSpec:
    """How a model's pictures are cut: ``tile`` and ``overlap`` in input pixels.

    ``align`` > 1 asks for tiles that start at its multiples.
    """

    tile: int = 256
    overlap: int = 24
    stitch: Stitch = "crop"
    align: int = 1
    minimum_tile: int = 32


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column to the right."""
        return self.left + self.width

    def scaled(self, scale: int) -> Box:
        """The same rectangle in a picture ``scale`` times as large."""
        return Box(self.top * scale, self.left * scale, self.height * scale, self.width * scale)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How one picture of ``height`` x ``width`` is cut: everything in input pixels, made by ``tiling.plan_tiles``.

    ``boxes`` are the tiles, row-major, ``rows`` x ``columns`` of them; all are ``tile_height`` x ``tile_width``
    unless the last ones are smaller because tiles are aligned. ``cores`` are what each tile owns of the picture:
    they partition it, and each lies at least ``overlap`` away from its tile's inner edges. The model gets
    ``padded_height`` x ``padded_width``, which meets ``size``.
    """

    height: int
    width: int
    overlap: int
    tile_height: int
    tile_width: int
    padded_height: int
    padded_width: int
    rows: int
    columns: int
    boxes: tuple[Box, ...]
    cores: tuple[Box, ...]
    size: SizeRequirements


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
class PackageSource:
    """A file inside a package of the backend's own environment, found without importing the package."""

    package: str
    path: str


@dataclass(frozen=True, slots=True)
class Asset:
    """A verified file. ``sha256`` in lower-case hex; ``size`` in bytes."""

    role: str
    file: str
    sha256: str
    size: int
    source: PackageSource


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A trained instance: its name is unique in the world."""

    name: str
    scale: int
    assets: tuple[Asset, ...] = ()
    title: str = ""
    licence: str = ""
    licence_url: str = ""
    # The licence must be accepted before first use (non-commercial, share-alike weights).
    restricted: bool = False
    # Extra values for this model's load, from the manifest, passed to the backend as they are.
    options: Mapping[str, ParameterValue] = field(default_factory=dict[str, "ParameterValue"])


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

    def model(self, name: str) -> ModelSpec:
        """The model of that name; KeyError where there is none."""
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a worker says of itself once a model is loaded (``Loaded``)."""

    scale: int
    size: SizeRequirements
    device: str
    device_name: str = ""
    precision: str = "fp32"
    # dtypes a tile may be sent in and asked back in.
    dtypes: tuple[str, ...] = ("uint8", "float32")
