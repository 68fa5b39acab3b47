"""Scripts run in a backend's own environment, which is built where it is missing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from measure import ROOT, environment, run

if TYPE_CHECKING:
    from pathlib import Path


def inside(backend: str, script: Path, *arguments: str, flavour: str = "cpu") -> Any:
    """What SCRIPT ARGUMENTS BACKENDS PROTOCOL prints as JSON, run by the environment of ``backend``."""
    from upx.catalog import Catalog
    from upx.config import Settings
    from upx.venvs.builder import EnvBuilder

    settings = Settings.from_env(_environment())
    spec = Catalog(settings).backend(backend)
    python = EnvBuilder(settings).ensure(spec.env, flavour=flavour).python
    command = [python, "-I", script, *arguments, ROOT / "backends", ROOT / "protocol"]
    return json.loads(run(command, env=environment(**spec.environ))[1])


def _environment() -> dict[str, str]:
    """The bench's own home, with the folder of wheels that the user named."""
    wheels = {name: os.environ[name] for name in ("UPX_WHEELHOUSE",) if name in os.environ}
    return environment(**wheels)
