"""The built wheel, alone in a bare virtualenv, enlarges the photograph to the very pixels of the checkout."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from built import UV, Dist, find_python
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.timeout(600)


def _pixels(path: Path) -> str:
    with Image.open(path) as picture:
        return f"{picture.mode} {picture.size} {hashlib.sha256(picture.tobytes()).hexdigest()}"


def _up(python: Path, photograph: Path, target: Path, env: Mapping[str, str]) -> dict[str, object]:
    """Run the command from the target's folder; its record."""
    command = [python, "-m", "upx", "up", str(photograph), "-o", str(target), "--keep-alive", "0", "--json"]
    result = subprocess.run(
        command, cwd=target.parent, env=env, check=False, capture_output=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stderr.decode()
    (record,) = [line for text in result.stdout.splitlines() if (line := json.loads(text))["kind"] == "picture"]
    return record


@pytest.fixture(scope="module")
def reference(photograph: Path, upx_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkout's pixels."""
    target = tmp_path_factory.mktemp("checkout") / "large.png"
    _up(Path(sys.executable), photograph, target, upx_env)
    return _pixels(target)


@pytest.fixture(scope="module")
def wheel_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UPX_HOME that no checkout has touched."""
    return tmp_path_factory.mktemp("wheel-home")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_wheel_in_a_bare_virtualenv_gives_the_same_pixels(
    version: str, dist: Dist, reference: str, wheel_home: Path, photograph: Path, tmp_path: Path
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", find_python(version), tmp_path / "venv"], check=True, timeout=60)
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, dist.wheel], check=True, timeout=170)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("UPX_", "PYTHON", "VIRTUAL_ENV"))}
    env["UPX_HOME"] = str(wheel_home)
    target = tmp_path / "elsewhere" / "large.png"
    target.parent.mkdir()

    record = _up(python, photograph, target, env)

    assert record["status"] == "done"
    assert _pixels(target) == reference
    where = subprocess.run(
        [python, "-c", "import upx, upx_protocol; print(upx.__file__, upx_protocol.__file__, sep='\\n')"],
        cwd=target.parent, env=env, check=True, capture_output=True,
    )  # fmt: skip
    assert all(line.startswith(str(tmp_path / "venv")) for line in where.stdout.decode().splitlines())
