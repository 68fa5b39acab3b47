"""Keeps memory that the next message needs again from going back to the system.

To encrypt a result libzmq asks for it three times over and gives it all back. The C library of most Linux systems
passes so much on to the kernel at once, and the next result pays for every page anew: a third of its time.
"""

from __future__ import annotations

import ctypes
import sys

# glibc's own numbers; 32 MiB is the most that it takes for the first.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST, KEPT = 32 << 20, 64 << 20


def keep() -> bool:
    """Let this process keep up to 64 MiB that it does not use; False where the C library cannot be told."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT))
