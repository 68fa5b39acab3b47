"""What `upx --help` and every verb's say, as one page; `scripts/make-commands` writes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INTRODUCTION = """# The command's verbs and options

Written by `scripts/make-commands` from the command itself. `upx-sr` is another name of `upx`.
"""
SUBVERBS = {
    "backends": ("list", "info"),
    "models": ("list", "info", "pull", "verify", "import", "rm", "du", "gc", "pin"),
    "env": ("list", "prune"),
    "worker": ("serve", "drain", "add", "list", "test", "rm"),
    "key": ("show", "new", "allow", "revoke"),
}


def verbs() -> list[tuple[str, ...]]:
    """Every verb and verb of a verb, the command itself first."""
    from upx.cli._app import VERBS

    found: list[tuple[str, ...]] = [()]
    for verb in VERBS:
        found.append((verb.name,))
        found += [(verb.name, sub) for sub in SUBVERBS.get(verb.name, ())]
    return found


def help_of(verb: tuple[str, ...]) -> str:
    """The help text, as wide as a terminal of 100 columns makes it."""
    command = [sys.executable, "-m", "upx", *verb, "--help"]
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    result = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60)
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def page() -> str:
    """The whole page."""
    sections = (f"## {' '.join(('upx', *verb))}\n\n```text\n{help_of(verb)}\n```\n" for verb in verbs())
    return "\n".join([INTRODUCTION, *sections])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
