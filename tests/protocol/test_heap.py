"""Memory that a worker keeps for its next message."""

from __future__ import annotations

import platform
import subprocess
import sys


def test_the_c_library_is_told_where_it_can_be() -> None:
    # In a process of its own: what it is told once holds for as long as it lives.
    code = "from upx_protocol import heap; print(heap.keep())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == str(sys.platform == "linux" and platform.libc_ver()[0] == "glibc")
