"""Restricted weights are used only after their licences were accepted, once; the acceptance is remembered."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

from upx.assets.disk import wait_for
from upx.assets.receipts import is_text, now
from upx.errors import LicenceError
from upx.notes import read_note, write_note

if TYPE_CHECKING:
    from pathlib import Path

    from upx.config import Settings
    from upx.specs import Licence, ModelSpec


def pending(model: ModelSpec, settings: Settings) -> tuple[Licence, ...]:
    """The licences of ``model`` that somebody has to read and accept before its first use."""
    restricted = tuple(licence for licence in model.licences if licence.restricted)
    return () if not restricted or accepted_at(model, settings) else restricted


def accepted_at(model: ModelSpec, settings: Settings) -> str:
    """When the licences that ``model`` has now were accepted (ISO 8601); empty where they were not."""
    kept: Any = read_note(_path(settings)).get(model.name)
    if not isinstance(kept, dict):
        return ""
    entry = cast("dict[str, Any]", kept)
    same = entry.get("licence") == model.licence_names
    return str(entry["time"]) if same and is_text(entry.get("time")) else ""


def accept(model: ModelSpec, settings: Settings) -> None:
    """Remember that its licences were accepted; where that cannot be kept it holds for this once."""
    path = _path(settings)
    entry = {"licence": model.licence_names, "time": now()}
    with contextlib.suppress(OSError), wait_for(path.with_name(f".{path.name}.lock"), shared=False):
        write_note(path, {**read_note(path), model.name: entry})


def require_licence(model: ModelSpec, settings: Settings, *, accept_now: bool) -> None:
    """LicenceError with the line to add when ``model`` is restricted and nobody accepted its licences yet."""
    waiting = pending(model, settings)
    if not waiting:
        return
    if accept_now:
        accept(model, settings)
        return
    raise LicenceError(
        f"the weights of {model.name} are under {'; '.join(map(terms, waiting))}",
        hint=f"read it, then add --accept-licence once, or run upx models pull {model.name} --accept-licence",
    )


def terms(licence: Licence) -> str:
    """A licence in one line: its name, what it asks, where its text is."""
    asks = (
        "not for commercial use" if licence.noncommercial else "",
        "access to be asked for" if licence.gated else "",
    )
    words = ", ".join(filter(None, asks))
    return f"{licence.name}{f', {words}' if words else ''} ({licence.link or licence.note or 'no text known'})"


def _path(settings: Settings) -> Path:
    return settings.data_dir / "licences.json"
