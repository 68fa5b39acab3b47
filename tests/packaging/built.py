"""A build's two files, and interpreters of the versions that we say we run on."""

from __future__ import annotations

import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".venv" / "bin" / "uv"


@dataclass(frozen=True)
class Dist:
    """One build's two files."""

    wheel: Path
    sdist: Path

    def names(self) -> list[str]:
        """What the wheel holds."""
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()


def find_python(version: str) -> Path:
    """An interpreter of that minor version that really runs: on the PATH, a version manager's, or fetched by uv."""
    for candidate in _candidates(version):
        code = f"import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
        try:
            if subprocess.run([candidate, "-c", code], check=False, capture_output=True, timeout=20).returncode == 0:
                return Path(candidate)
        except OSError:
            continue  # not a program
    subprocess.run([UV, "python", "install", version], check=True, timeout=170)
    found = subprocess.run([UV, "python", "find", "--managed-python", version], check=True, capture_output=True)
    return Path(found.stdout.decode().strip())


def _candidates(version: str) -> Iterator[str]:
    """Places to look in. A shim on the PATH may point at nothing, but lies beside the versions it could point at."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for folder in folders:
        if (folder / f"python{version}").exists():
            yield str(folder / f"python{version}")
    for folder in folders:
        if folder.name == "shims":
            for path in sorted(folder.parent.glob(f"versions/{version}.*/bin/python{version}"), reverse=True):
                yield str(path)
