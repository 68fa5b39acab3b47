"""How the results of ``upx models`` look to people; importing this teaches the renderer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from upx.cli._render import TABLES, Column, size_text, text, time_text
from upx.cli.models import _results as kinds

if TYPE_CHECKING:
    from upx.cli._console import Console


def show(console: Console, *results: object) -> None:
    """Print results of one kind."""
    console.results(*results)


def _size(row: kinds.ModelRow | kinds.ModelFile) -> str:
    return size_text(row.size) if row.size else "?"


def _installed(row: kinds.ModelRow) -> str:
    if row.damaged:
        return "damaged"
    if not row.places:
        return "-"
    return ", ".join(row.places) if row.installed else f"in part: {', '.join(row.places)}"


def _title(row: kinds.ModelRow) -> str:
    return row.title if row.runs else f"{row.title} (weights only, not run yet)"


def _licence_cell(row: kinds.ModelRow) -> str:
    first, *others = row.licence.split(" AND ")
    return f"{first or '-'}{f' +{len(others)}' if others else ''}{' *' if row.restricted else ''}"


MODEL_ROWS: tuple[Column, ...] = (
    ("MODEL", lambda row: row.name),
    ("SCALE", lambda row: f"x{row.scale}"),
    ("KIND", lambda row: row.trained),
    ("SIZE", _size),
    ("HERE", _installed),
    ("LICENCE", _licence_cell),
    ("", _title),
)
USAGE_ROWS: tuple[Column, ...] = (
    ("MODEL", lambda row: row.model),
    ("SIZE", lambda row: size_text(row.size)),
    ("OWN", lambda row: size_text(row.own)),
    ("LAST USED", lambda row: _ago(row.last_used)),
    ("", lambda row: ", ".join(filter(None, ("pinned" if row.pinned else "", "in use" if row.in_use else "")))),
)
TABLES[kinds.ModelRow] = MODEL_ROWS
TABLES[kinds.UsageRow] = USAGE_ROWS


@text.register
def _detail(row: kinds.ModelDetail) -> list[str]:
    facts = (
        ("backend", row.backend if row.runs else f"{row.backend}, which this version does not run"),
        ("also", ", ".join(row.aliases)),
        ("kind", f"{row.trained}, x{row.scale}"),
        ("bundles", ", ".join(row.bundles)),
        ("pinned", "yes" if row.pinned else ""),
    )
    lines = [f"{row.name}: {row.title}"]
    lines += [f"  {name + ':':<9} {value}" for name, value in facts if value]
    lines += [line for licence in row.licences for line in _licence(licence, row)]
    return lines + [line for each in row.files for line in _file(each)]


def _licence(licence: kinds.LicenceInfo, row: kinds.ModelDetail) -> list[str]:
    words = filter(
        None,
        (
            "not for commercial use" if licence.noncommercial else "",
            "access has to be asked for" if licence.gated else "",
            licence.link,
            licence.note,
        ),
    )
    asks = ""
    if licence.restricted:
        asks = f" (accepted {row.accepted[:10]})" if row.accepted else " (to be accepted: --accept-licence)"
    return [f"  {'licence:':<9} {licence.name}{asks}", *(f"  {'':<9} {word}" for word in words)]


def _file(each: kinds.ModelFile) -> list[str]:
    size = f"{'' if each.size_is_exact else 'about '}{size_text(each.size)}" if each.size else "size not known"
    lines = ["", f"  {each.role}: {each.file}, {size}, {each.licence or 'no licence stated'}"]
    lines += [f"    sha256  {each.sha256}"] if each.sha256 else []
    lines += [f"    sha256  unverified: {each.unverified}"] if each.unverified else []
    lines += [f"    source  {source}" for source in each.sources]
    if each.place:
        return [*lines, f"    here    {each.place}: {each.why}", f"            {each.path}"]
    return [*lines, f"    absent  {each.why}", f"            → {each.hint}"]


@text.register
def _pulled(row: kinds.PullRow) -> list[str]:
    if row.status == "failed":
        return []
    brought = f": {', '.join(row.files)}" if row.files else ""
    return [f"{row.model} is {'here' if row.status == 'present' else 'pulled'} ({size_text(row.size)}){brought}"]


@text.register
def _checked(row: kinds.FileCheck) -> list[str]:
    line = f"{row.status:<10}  {row.name}{f': {row.file}' if row.file else ''}: {row.message}"
    return [line, f"{'':<12}→ {row.hint}"] if row.hint else [line]


@text.register
def _imported(row: kinds.ImportRow) -> list[str]:
    notes = f" ({'; '.join(row.notes)})" if row.notes else ""
    return [f"{row.source} is {row.model}:{row.role}, {size_text(row.size)}{notes}", f"  {row.path}"]


@text.register
def _total(row: kinds.StoreTotal) -> list[str]:
    parts = f", and {size_text(row.parts)} of unfinished downloads" if row.parts else ""
    cap = f", cap {size_text(row.cap)}" if row.cap is not None else ""
    return [f"{size_text(row.size)} in {row.folder}{parts}{cap}"]


@text.register
def _removed(row: kinds.Removed) -> list[str]:
    lines = [f"removed {model}" for model in row.models]
    lines += [
        f"kept {model}: in use (upx stop ends workers), pinned, or its bytes are another's too" for model in row.kept
    ]
    return [*lines, f"{size_text(row.freed)} freed"]


@text.register
def _pinned(row: kinds.Pinned) -> list[str]:
    return [f"{row.model} is {'never evicted' if row.pinned else 'evicted like any other'}"]


def _ago(moment: float) -> str:
    return f"{time_text(max(0.0, time.time() - moment))} ago" if moment else "never"
