"""Frozen specs out of checked tables; imports nothing heavy."""

from __future__ import annotations

from typing import Any

from upx.specs import (
    Asset,
    DriveSource,
    HubSource,
    Licence,
    ManualSource,
    ModelSpec,
    OneDriveSource,
    PackageSource,
    Source,
    UrlSource,
)

_SOURCES: dict[str, type[Source]] = {
    each.kind: each
    for each in (PackageSource, HubSource, UrlSource, DriveSource, OneDriveSource, ManualSource)
}  # fmt: skip


def build_asset(table: dict[str, Any]) -> Asset:
    """The asset of one ``assets`` table."""
    licence = Licence(**table["licence"]) if table["licence"] else None
    made: dict[str, Any] = {**table, "sources": tuple(map(build_source, table["sources"])), "licence": licence}
    return Asset(**made)


def build_source(table: dict[str, Any]) -> Source:
    """The source of one table."""
    return _SOURCES[table["kind"]](**{key: value for key, value in table.items() if key != "kind"})


def build_model(table: dict[str, Any], shared: list[dict[str, Any]], licence: dict[str, Any] | None) -> ModelSpec:
    """The model of one ``models`` table; ``shared`` are the assets of every model, ``licence`` the backend's."""
    own = table["licence"] or licence
    made: dict[str, Any] = {
        **table,
        "assets": tuple(build_asset(asset) for asset in (*table["assets"], *shared)),
        "aliases": tuple(table["aliases"]),
        "bundles": tuple(table["bundles"]),
        "licence": Licence(**own) if own else Licence(""),
    }
    return ModelSpec(**made)
