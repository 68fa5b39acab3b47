"""How results look: as JSON records, as tables and as lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, TypeAlias

from upx.cli import _results as kinds
from upx.result import SCHEMA, Record

Column: TypeAlias = tuple[str, Callable[[Any], str]]

_STEPS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def size_text(size: int) -> str:
    """Bytes as people read them: ``110 MiB``."""
    for step, unit in _STEPS:
        if size >= step:
            return f"{size / step:.3g} {unit}" if size < 1000 * step else f"{size // step} {unit}"
    return f"{size} B"


def time_text(seconds: float | None) -> str:
    """Seconds as people read them: ``4.2 s``, ``3 min 05 s``, ``2 h 10 min``; None is for ever."""
    if seconds is None:
        return "for ever"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < _MINUTE / 6 else f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{int(seconds) // _MINUTE} min {int(seconds) % _MINUTE:02} s"
    if seconds < _DAY:
        return f"{int(seconds) // _HOUR} h {int(seconds) % _HOUR // _MINUTE:02} min"
    return f"{seconds / _DAY:.1f} d"


def to_record(result: Any) -> dict[str, Any]:
    """The JSON record of a result: ``schema``, ``kind``, then its fields."""
    if isinstance(result, Record):
        return result.to_json()
    fields = {field.name: _plain(getattr(result, field.name)) for field in dataclasses.fields(result)}
    return {"schema": SCHEMA, "kind": result.KIND, **fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # what a mapping holds is known to its class alone
    if isinstance(value, tuple):
        return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]  # same
    return value


def to_lines(results: Sequence[Any]) -> list[str]:
    """The results, all of one kind, as lines for people: a table where the kind has columns."""
    columns = TABLES.get(_kind(results[0])) if results else None
    if columns is not None:
        return table(columns, results)
    return [line for result in results for line in text(result)]


def _kind(result: object) -> type[object]:
    return type(result)


def table(columns: Sequence[Column], rows: Sequence[Any]) -> list[str]:
    """Aligned columns below their headers."""
    cells = [[header for header, _ in columns], *([cell(row) for _, cell in columns] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


@singledispatch
def text(result: Any) -> list[str]:
    """The lines of one result."""
    raise TypeError(_kind(result))


@text.register
def _version(result: kinds.Version) -> list[str]:
    return [f"upx {result.version} (protocol {result.protocol}, Python {result.python})"]


@text.register
def _problem(result: kinds.BackendProblem) -> list[str]:
    return [f"unusable: {result.message}", f"  → {result.hint}"]


@text.register
def _env(result: kinds.EnvReady) -> list[str]:
    mended = f", {result.mended} files mended" if result.mended else ""
    return [f"{result.backend} is ready: {result.folder} ({result.flavour}, {time_text(result.seconds)}{mended})"]


@text.register
def _pruned(result: kinds.Pruned) -> list[str]:
    lines = [f"removed {folder}" for folder in result.removed]
    lines += [f"in use, kept {folder}" for folder in result.kept_in_use]
    return [*lines, f"{size_text(result.freed)} freed"]


@text.register
def _stopped(result: kinds.Stopped) -> list[str]:
    return [f"{result.id} ({result.backend}, process {result.pid}): {result.outcome}"]


@text.register
def _warm(result: kinds.Warm) -> list[str]:
    where = f"{result.model} is loaded on {result.device} ({result.precision}) after {time_text(result.seconds)}"
    return [f"{where}, kept {time_text(result.keep_alive)}"]


@text.register
def _own_key(result: kinds.OwnKey) -> list[str]:
    use = "boxes allow it: upx key allow NAME KEY" if result.which == "client" else "clients add it: upx worker add"
    return [f"{result.which}  {result.key}  ({use})"]


@text.register
def _allowed_key(result: kinds.AllowedKey) -> list[str]:
    return [f"{result.state}  {result.key}  {result.name}"]


@text.register
def _check(result: kinds.Check) -> list[str]:
    line = f"{result.status:<4}  {result.name}: {result.message}"
    return [line, f"      → {result.hint}"] if result.hint else [line]


@text.register
def _info(result: kinds.BackendInfo) -> list[str]:
    aliases = f" (also: {', '.join(result.aliases)})" if result.aliases else ""
    tiles = f"{result.tile} pixels, overlap {result.overlap}, {result.stitch}"
    facts = (
        ("homepage", result.homepage),
        ("devices", ", ".join(result.devices)),
        ("precisions", ", ".join(result.precisions)),
        ("tiles", tiles),
        ("manifest", str(result.folder)),
        ("environment", _env_words(result)),
    )
    lines = [f"{result.name}{aliases}: {result.title}"]
    lines += [f"  {result.description}"] if result.description else []
    lines += [f"  {name + ':':<13} {value}" for name, value in facts if value]
    lines += ["", *table(MODEL_COLUMNS, result.models)]
    return [*lines, "", *table(PARAMETER_COLUMNS, result.parameters)] if result.parameters else lines


def _env_words(info: kinds.BackendInfo) -> str:
    if info.purpose == "weights":
        return "none in this version, which keeps the weights and cannot run them yet"
    return str(info.env) if info.env else f"not built: upx setup {info.name}"


def _model_note(model: kinds.ModelInfo) -> str:
    return f"{model.title} ({model.licence_url}, --accept-licence)" if model.restricted else model.title


def _ready(row: kinds.BackendRow) -> str:
    return "weights only" if row.purpose == "weights" else "yes" if row.env else "no"


def _range(parameter: kinds.ParameterInfo) -> str:
    if parameter.choices:
        return ", ".join(map(str, parameter.choices))
    if parameter.minimum is None and parameter.maximum is None:
        return "any"
    low = "" if parameter.minimum is None else f"{parameter.minimum:g}"
    high = "" if parameter.maximum is None else f"{parameter.maximum:g}"
    return f"{low}..{high}"


def _env_note(row: kinds.EnvRow) -> str:
    return "in use" if row.in_use else "superseded" if row.superseded else ""


def _shares(row: kinds.BenchRow) -> str:
    return "  ".join(f"{name} {share:.0%}" for name, share in row.stages.items())


MODEL_COLUMNS: tuple[Column, ...] = (
    ("MODEL", lambda model: model.name),
    ("SCALE", lambda model: f"x{model.scale}"),
    ("LICENCE", lambda model: model.licence),
    ("", _model_note),
)
PARAMETER_COLUMNS: tuple[Column, ...] = (
    ("--set", lambda parameter: parameter.name),
    ("KIND", lambda parameter: parameter.kind),
    ("DEFAULT", lambda parameter: str(parameter.default)),
    ("RANGE", _range),
    ("", lambda parameter: parameter.help),
)
TABLES: dict[type, tuple[Column, ...]] = {
    kinds.BackendRow: (
        ("BACKEND", lambda row: row.name),
        ("SCALES", lambda row: " ".join(f"x{scale}" for scale in row.scales)),
        ("DEFAULT MODEL", lambda row: row.default_model),
        ("DEVICES", lambda row: " ".join(row.devices)),
        ("READY", _ready),
        ("", lambda row: row.title),
    ),
    kinds.EnvRow: (
        ("ENVIRONMENT", lambda row: row.folder.name),
        ("STATE", lambda row: row.state),
        ("FLAVOUR", lambda row: row.flavour or ""),
        ("SIZE", lambda row: size_text(row.size)),
        ("", _env_note),
    ),
    kinds.BoxRow: (
        ("BOX", lambda row: row.name),
        ("ADDRESS", lambda row: row.endpoint),
        ("BACKEND", lambda row: row.backend or "not reached yet"),
        ("KEY", lambda row: row.key),
    ),
    kinds.BoxTest: (
        ("BOX", lambda row: row.name),
        ("ADDRESS", lambda row: row.endpoint),
        ("BACKEND", lambda row: row.backend),
        ("DEVICE", lambda row: row.device_name or row.device),
        ("LATENCY", lambda row: f"{row.latency_ms:.3g} ms"),
        ("EACH WAY", lambda row: f"{row.mbit_per_second:.3g} Mbit/s"),
        ("HOSTS", lambda row: str(row.hosts)),
        ("QUEUED", lambda row: str(row.queued)),
        ("PROTOCOL", lambda row: row.protocol),
        ("MODELS", lambda row: " ".join(row.models)),
    ),
    kinds.BenchRow: (
        ("WORKERS", lambda row: str(row.workers)),
        ("TILE", lambda row: str(row.tile)),
        ("SECONDS", lambda row: f"{row.seconds:.2f}"),
        ("TILES/S", lambda row: f"{row.tiles_per_second:.2f}"),
        ("MP/S", lambda row: f"{row.megapixels_per_second:.3f}"),
        ("STAGES", _shares),
    ),
}
