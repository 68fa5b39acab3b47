"""The tables that every file about weights has: licences, sources, assets. Keys are described in backends/README.md."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Value: TypeAlias = bool | int | float | str
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
# What no system's file may be called, or what a shell or a link would read in its own way.
_ODD = re.compile(r"[\x00-\x1f\x7f\\:*?\"<>|]")


def inside(path: str) -> str:
    """Refuse a path that leads out of its folder."""
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or _ODD.search(path):
        raise ValueError("must be a path that stays inside of its folder")
    return path


def _address(url: str) -> str:
    if not _URL.fullmatch(url):
        raise ValueError("must be an address that begins with https:// or http://")
    return url


Inside: TypeAlias = Annotated[str, AfterValidator(inside)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]


class Table(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LicenceTable(Table):
    """``licence``."""

    name: Annotated[str, Field(min_length=1)]
    link: str = ""
    noncommercial: bool = False
    gated: bool = False
    ask: bool = False
    note: str = ""


class PackageTable(Table):
    """``{ kind = "package" }``."""

    kind: Literal["package"]
    package: Inside
    path: Inside


class HubTable(Table):
    """``{ kind = "hf" }``."""

    kind: Literal["hf"]
    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]
    path: Inside
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./-]*$")] = "main"


class UrlTable(Table):
    """``{ kind = "url" }``."""

    kind: Literal["url"]
    url: Address


class DriveTable(Table):
    """``{ kind = "gdrive" }``."""

    kind: Literal["gdrive"]
    id: Annotated[str, Field(pattern=r"^[\w-]{10,}$")]


class OneDriveTable(Table):
    """``{ kind = "onedrive" }``."""

    kind: Literal["onedrive"]
    link: Address


class ManualTable(Table):
    """``{ kind = "manual" }``."""

    kind: Literal["manual"]
    where: Annotated[str, Field(min_length=1)]
    note: str = ""


SourceTable: TypeAlias = Annotated[
    PackageTable | HubTable | UrlTable | DriveTable | OneDriveTable | ManualTable, Field(discriminator="kind")
]
SOURCES: tuple[type[Table], ...] = (PackageTable, HubTable, UrlTable, DriveTable, OneDriveTable, ManualTable)


class AssetTable(Table):
    """``[[models.assets]]`` and ``[[assets]]``."""

    role: Name
    file: Inside
    sources: Annotated[list[SourceTable], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    size: Count = 0
    about: Count = 0
    unverified: str = ""
    licence: LicenceTable | None = None
    layout: Annotated[str, Field(pattern=r"^([\w-]+(/[\w-]+)*\.json)?$")] = ""

    @model_validator(mode="after")
    def _says_what_it_is(self) -> AssetTable:
        if bool(self.sha256) == bool(self.unverified):
            raise ValueError(f"{self.file}: give sha256, or unverified with the reason why there is none")
        return self


def where(location: tuple[int | str, ...]) -> str:
    """The place of a wrong key, as people write it."""
    return ".".join(str(part) for part in location) or "the file"


def key_names(table: type[Table]) -> list[str]:
    """A table's keys as they stand in the file."""
    fields: dict[str, Any] = table.model_fields
    return [each.alias or key for key, each in fields.items()]
