"""Keeps memory that the next message needs again from going back to the system.

To encrypt a result libzmq asks for memory of its size and gives it back. The C library of most Linux systems passes so
much on to the kernel, and the next result pays for its pages anew: 270 to 750 faults for 3 MB, up to a third of its
time; none with this.
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
