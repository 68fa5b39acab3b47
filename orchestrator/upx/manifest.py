"""The shape of a ``backend.toml``, checked by pydantic; every key is described in ``backends/README.md``."""

from __future__ import annotations

import difflib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from upx.errors import ManifestError

if TYPE_CHECKING:
    from pathlib import Path

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Value: TypeAlias = bool | int | float | str
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]


def _inside(path: str) -> str:
    """Refuse a path that leads out of its folder."""
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise ValueError("must be a path inside of the package")
    return path


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EnvTable(_Table):
    """``[env]``."""

    python: str = "3.11"
    imports: list[str] = ["msgpack", "zmq", "numpy"]


class TilingTable(_Table):
    """``[tiling]``."""

    tile: Positive = 256
    overlap: Count = 24
    stitch: Literal["none", "crop", "feather"] = "crop"
    align: Positive = 1
    minimum_tile: Positive = 32


class SizeTable(_Table):
    """``[size]``."""

    minimum: Positive = 1
    multiple_of: Positive = 1
    square: bool = False
    fixed: Count = 0


class ParameterTable(_Table):
    """``[parameters.NAME]``."""

    kind: Literal["int", "float", "bool", "str"]
    default: Value
    help: str = ""
    minimum: float | int | None = None
    maximum: float | int | None = None
    choices: list[Value] = []
    applies: Literal["load", "job"] = "job"


class SourceTable(_Table):
    """``source`` of an asset."""

    package: str
    path: Annotated[str, AfterValidator(_inside)]


class AssetTable(_Table):
    """``[[models.assets]]``."""

    role: str
    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Positive
    source: SourceTable


class ModelTable(_Table):
    """``[[models]]``."""

    name: Name
    scale: Positive
    title: str = ""
    licence: str = ""
    licence_url: str = ""
    restricted: bool = False
    options: dict[str, Value] = {}
    assets: list[AssetTable] = []


class Manifest(_Table):
    """The whole file."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Name
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
    parameters: dict[Name, ParameterTable] = {}
    models: Annotated[list[ModelTable], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError("two models have one name")
        if self.default_model not in names:
            raise ValueError(f"default_model {self.default_model!r} is none of the models")
        return self


def parse(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """A parsed TOML file, checked and with every default filled in; JSON-ready, keys as in the file.

    ManifestError names ``path`` and the first wrong key.
    """
    try:
        return Manifest.model_validate(table).model_dump(mode="json", by_alias=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            message = f"{path}: unknown key {where}"
            hint = _nearest_key(first["loc"])
        else:
            message, hint = f"{path}: {where}: {first['msg']}", "backends/README.md describes the manifest"
        raise ManifestError(message, hint=hint) from error


def keys() -> dict[str, list[str]]:
    """Every key of the manifest, by table; for documentation and its test."""
    tables = {
        "": Manifest, "env": EnvTable, "tiling": TilingTable, "size": SizeTable, "parameters.NAME": ParameterTable,
        "models": ModelTable, "models.assets": AssetTable, "models.assets.source": SourceTable,
    }  # fmt: skip
    return {name: [field.alias or key for key, field in cls.model_fields.items()] for name, cls in tables.items()}


def _nearest_key(location: tuple[int | str, ...]) -> str:
    known = [key for table in keys().values() for key in table]
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean {near[0]}?" if near else "remove it; backends/README.md lists the keys"
