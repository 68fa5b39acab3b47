"""The distributions, built once for all tests of them."""

from __future__ import annotations

import subprocess

import pytest
from built import ROOT, Dist


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    """``scripts/build``'s wheel and source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([ROOT / "scripts" / "build", str(folder)], check=True, timeout=170, stdin=subprocess.DEVNULL)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Dist(wheel, sdist)
