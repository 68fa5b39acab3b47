"""The shape of a ``backend.toml``, checked by pydantic; every key is described in ``backends/README.md``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from upx.errors import ManifestError
from upx.manifest.tables import (
    SOURCES,
    AssetTable,
    Count,
    LicenceTable,
    Name,
    Positive,
    Table,
    Value,
    key_names,
    where,
)

if TYPE_CHECKING:
    from pathlib import Path


FIXES: set[Value] = {"adain", "wavelet", "none"}


class EnvTable(Table):
    """``[env]``."""

    python: str = "3.11"
    imports: list[str] = ["msgpack", "zmq", "numpy"]


class TilingTable(Table):
    """``[tiling]``."""

    tile: Positive = 256
    overlap: Count = 24
    stitch: Literal["none", "crop", "feather"] = "crop"
    align: Positive = 1
    minimum_tile: Positive = 32


class SizeTable(Table):
    """``[size]``."""

    minimum: Positive = 1
    multiple_of: Positive = 1
    square: bool = False
    fixed: Count = 0


class ColourTable(Table):
    """``[colour]``."""

    parameter: str
    adain: Literal["input", "enlarged"] = "enlarged"
    truncate: bool = False


class ParameterTable(Table):
    """``[parameters.NAME]``."""

    kind: Literal["int", "float", "bool", "str"]
    default: Value
    help: str = ""
    minimum: float | int | None = None
    maximum: float | int | None = None
    choices: list[Value] = []
    applies: Literal["load", "job"] = "job"


class ModelTable(Table):
    """``[[models]]``."""

    name: Name
    scale: Positive
    aliases: list[Name] = []
    title: str = ""
    align: Count = 0
    kind: Literal["interpolation", "regression", "gan", "diffusion", "autoregressive", "utility"] = "regression"
    licence: LicenceTable | None = None
    bundles: list[Name] = []
    options: dict[str, Value] = {}
    assets: list[AssetTable] = []


class Manifest(Table):
    """The whole file."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    kind: Literal["upscaler", "utility", "weights"] = "upscaler"
    title: str = ""
    description: str = ""
    homepage: str = ""
    default_model: Name
    aliases: list[Name] = []
    devices: Annotated[list[str], Field(min_length=1)] = ["cpu"]
    precisions: Annotated[list[str], Field(min_length=1)] = ["fp32"]
    threads: Count = 0
    workers: Count = 1
    batch: Positive = 1
    env: EnvTable = EnvTable()
    environ: dict[str, str] = {}
    tiling: TilingTable = TilingTable()
    size: SizeTable = SizeTable()
    colour: ColourTable | None = None
    parameters: dict[Name, ParameterTable] = {}
    licence: LicenceTable | None = None
    assets: list[AssetTable] = []
    models: Annotated[list[ModelTable], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError("two models have one name")
        if self.colour is not None:
            named = self.parameters.get(self.colour.parameter)
            if named is None or not {"none"} <= set(named.choices) <= FIXES or named.applies != "job":
                raise ValueError(f"colour: parameter {self.colour.parameter!r} is no choice of {sorted(FIXES)} per job")
        words = {alias for model in self.models for alias in model.aliases}
        if both := words & {*names, self.name, *self.aliases}:
            raise ValueError(f"{min(both)!r} is an alias of models and another name as well")
        if self.default_model not in names:
            raise ValueError(f"default_model {self.default_model!r} is none of the models")
        for model in self.models:
            _distinct(model.name, [*model.assets, *self.assets])
        return self


def _distinct(model: str, assets: list[AssetTable]) -> None:
    """Two files of one role or name could not both be found, nor one below the other's name."""
    files = [asset.file for asset in assets]
    below = next((each for each in files for other in files if each.startswith(f"{other}/")), None)
    if below is not None:
        raise ValueError(f"{model}: {below!r} lies below another asset's file")
    for what in ("role", "file"):
        names = [getattr(asset, what) for asset in assets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two assets of {model} have the {what} {twice!r}")


def parse(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """A parsed TOML file, checked and with every default filled in; JSON-ready, keys as in the file.

    ManifestError names ``path`` and the first wrong key.
    """
    try:
        return Manifest.model_validate(table).model_dump(mode="json", by_alias=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = where(first["loc"])
        if first["type"] == "extra_forbidden":
            message = f"{path}: unknown key {place}"
            hint = _nearest_key(first["loc"])
        else:
            message, hint = f"{path}: {place}: {first['msg']}", "backends/README.md describes the manifest"
        raise ManifestError(message, hint=hint) from error


def keys() -> dict[str, list[str]]:
    """Every key of the manifest, by table; for documentation and its test."""
    tables: dict[str, type[Table]] = {
        "": Manifest, "env": EnvTable, "tiling": TilingTable, "size": SizeTable, "colour": ColourTable,
        "parameters.NAME": ParameterTable,
        "models": ModelTable, "licence": LicenceTable, "models.assets": AssetTable,
        **{f"sources.{each.__name__}": each for each in SOURCES},
    }  # fmt: skip
    return {name: key_names(table) for name, table in tables.items()}


def _nearest_key(location: tuple[int | str, ...]) -> str:
    known = [key for table in keys().values() for key in table]
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean {near[0]}?" if near else "remove it; backends/README.md lists the keys"
