"""Restricted weights are used only after their licence was accepted, once; the acceptance is remembered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from upx.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from upx.config import Settings
    from upx.specs import ModelSpec


def require_licence(model: ModelSpec, settings: Settings, *, accept: bool) -> None:
    """WeightsError with the line to add when ``model`` is restricted and nobody accepted its licence yet."""
    if not model.restricted:
        return
    path = _path(settings)
    accepted = _read(path)
    if accepted.get(model.name) == model.licence:
        return
    if not accept:
        raise WeightsError(
            f"the weights of {model.name} are under {model.licence} ({model.licence_url})",
            hint="read it, then add --accept-licence once",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps({**accepted, model.name: model.licence}, indent=1), encoding="utf-8")
    beside.replace(path)


def _path(settings: Settings) -> Path:
    return settings.data_dir / "licences.json"


def _read(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # nothing accepted, or a file that no longer says what was
