"""A host to be killed: `venv_host.py ROOT LOCK [INDEX]` builds the environment of LOCK, printing its stages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from venv_kit import make_settings

from upx.specs import EnvSpec
from upx.venvs.builder import EnvBuilder

if TYPE_CHECKING:
    from upx.venvs.venv import Progress

root, lock = Path(sys.argv[1]), Path(sys.argv[2])
index = sys.argv[3] if len(sys.argv) > 3 else None
settings = make_settings(root, wheelhouse=root / "wheels")
if index:
    settings = make_settings(root, offline=False, index=index, uv_cache=root / "host-cache")


def say(progress: Progress) -> None:
    print("stage", progress.stage, flush=True)


print(EnvBuilder(settings).ensure(EnvSpec(lock.stem, lock, imports=("alpha",)), on_progress=say).folder, flush=True)
