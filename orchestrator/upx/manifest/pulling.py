"""The file of ``upx models pull --manifest``: which models, files and environments a machine is to have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from upx.errors import ManifestError
from upx.manifest.reading import NoTomlError, parse_toml, read_bytes
from upx.manifest.tables import AssetTable, Name, Table, key_names, where

if TYPE_CHECKING:
    from pathlib import Path

HINT = "README.md, section Weights, describes the file"


class WantedTable(AssetTable):
    """``[[assets]]``: as in a backend.toml, and the model that the file belongs to."""

    model: Name


class Wanted(Table):
    """The whole file."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    models: list[Name] = []
    bundles: list[Name] = []
    envs: list[Name] = []
    pin: bool = False
    assets: list[WantedTable] = []


def parse_wanted(path: Path) -> dict[str, Any]:
    """The checked table of the file at ``path``; ManifestError names it and the first wrong key."""
    try:
        return Wanted.model_validate(parse_toml(read_bytes(path))).model_dump(mode="json", by_alias=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise ManifestError(f"{path}: {where(first['loc'])}: {what}", hint=HINT) from error
    except (OSError, NoTomlError) as error:
        raise ManifestError(f"{path}: {error}", hint=HINT) from error


def keys() -> dict[str, list[str]]:
    """Every key of the file, by table; for documentation and its test."""
    return {"": key_names(Wanted), "assets": key_names(WantedTable)}
