"""The lab lies with the scripts: its modules, and a lab for a module's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "net_parts"))


@pytest.fixture(scope="module")
def permitted() -> None:
    """Only where the machine makes no namespaces for us at all; what else a lab needs has to be there.

    With UPX_NEED_NET, as on a machine that is to check all, that is a failure too.
    """
    asked = subprocess.run(["/usr/bin/env", "unshare", "--net", "true"], capture_output=True, check=False)
    if asked.returncode != 0:
        assert not os.environ.get("UPX_NEED_NET"), asked.stderr
        pytest.skip("this machine makes no network namespaces")


@pytest.fixture
def lab(permitted):
    """Two boxes, links as fast as they go."""
    from lab import Lab

    with Lab(boxes=2) as made:
        yield made
