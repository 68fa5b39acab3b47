"""The lab, whose modules lie with the scripts; what is asked of a box lies with the tests of boxes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts" / "net_parts"), str(ROOT / "tests" / "orchestrator" / "serving")]


@pytest.fixture(scope="module")
def permitted() -> None:
    """Only where the machine makes no namespaces for us at all; what else a lab needs has to be there."""
    asked = subprocess.run(["/usr/bin/env", "unshare", "--net", "true"], capture_output=True, check=False)
    if asked.returncode != 0:
        pytest.skip("this machine makes no network namespaces")


@pytest.fixture
def lab(permitted):
    """Two boxes, links as fast as they go."""
    from lab import Lab

    with Lab(boxes=2) as made:
        yield made
