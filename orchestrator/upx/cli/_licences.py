"""A licence is shown before first use: on a terminal it is asked for, a script is told the line to add."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from upx.assets.licences import accept, pending, terms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upx.cli._console import Console
    from upx.config import Settings
    from upx.specs import ModelSpec

YES = {"y", "yes"}


def ask_for(models: Iterable[ModelSpec], settings: Settings, console: Console, *, accepted: bool) -> None:
    """Ask for every licence that is neither accepted nor refused by ``--accept-licence`` being there.

    Without a terminal on both sides nothing is asked: whoever needs the weights raises LicenceError.
    """
    if accepted or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for model in models:
        waiting = pending(model, settings)
        if not waiting:
            continue
        for licence in waiting:
            console.raw(f"{model.name}: {terms(licence)}{f'; {licence.note}' if licence.note else ''}")
        sys.stderr.write(f"Accept {'these licences' if len(waiting) > 1 else 'this licence'} for {model.name}? [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            sys.stderr.write("\n")
        if answer.strip().lower() in YES:
            accept(model, settings)
