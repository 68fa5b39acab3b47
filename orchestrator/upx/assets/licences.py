"""Restricted weights are used only after their licence was accepted, once; the acceptance is remembered."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from upx.errors import WeightsError
from upx.notes import read_note, write_note

if TYPE_CHECKING:
    from pathlib import Path

    from upx.config import Settings
    from upx.specs import ModelSpec


def require_licence(model: ModelSpec, settings: Settings, *, accept: bool) -> None:
    """WeightsError with the line to add when ``model`` is restricted and nobody accepted its licence yet."""
    if not model.restricted:
        return
    path = _path(settings)
    accepted = read_note(path)
    if accepted.get(model.name) == model.licence:
        return
    if not accept:
        raise WeightsError(
            f"the weights of {model.name} are under {model.licence} ({model.licence_url})",
            hint="read it, then add --accept-licence once",
        )
    # Where it cannot be remembered it holds for this once, and is asked for again.
    with contextlib.suppress(OSError):
        write_note(path, {**accepted, model.name: model.licence})


def _path(settings: Settings) -> Path:
    return settings.data_dir / "licences.json"
