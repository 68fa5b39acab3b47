"""What is remembered from one command to the next: small JSON files, whole or absent, and never trusted.

A note is a convenience. One that was cut short, edited by hand or written by another version reads as an empty one.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_note(path: Path) -> dict[str, Any]:
    """What the note at ``path`` says; empty where there is none, or none that is a JSON object."""
    try:
        # A pipe under that name would be waited for.
        content: Any = json.loads(path.read_bytes()) if stat.S_ISREG(path.stat().st_mode) else None
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def write_note(path: Path, content: Mapping[str, object]) -> None:
    """Write the note at ``path`` beside and rename it; OSError where that fails, and then nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads and processes write at the same time: each its own file.
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
