"""What Windows does in place of a parent-death signal: a job object whose processes end with its last handle.

Nothing here runs elsewhere; the machines of the continuous integration are not Windows, so keep it this small.
"""

from __future__ import annotations

import sys
from typing import Any

KILL_ON_CLOSE = 0x2000
EXTENDED_LIMIT = 9
QUERY_LIMITED, SYNCHRONIZE = 0x1000, 0x100000
STILL_RUNNING = 0x102
# Offset of LimitFlags in JOBOBJECT_EXTENDED_LIMIT_INFORMATION, and that structure's size, on 64 bits.
FLAGS_AT, LIMIT_SIZE = 16, 144


def _kernel32() -> Any:
    import ctypes

    if sys.platform != "win32":
        raise NotImplementedError("job objects are Windows' own")
    return ctypes.WinDLL("kernel32", use_last_error=True)


class Job:
    """A job object. Processes put into it end when this host does, however it ends."""

    def __init__(self) -> None:
        self._handle: int = 0

    def add(self, process_handle: int) -> None:
        """Put a process (its handle) into the job; OSError where the system refuses."""
        import ctypes

        kernel = _kernel32()
        if not self._handle:
            self._handle = self._create(kernel)
        if not kernel.AssignProcessToJobObject(ctypes.c_void_p(self._handle), ctypes.c_void_p(process_handle)):
            raise OSError("AssignProcessToJobObject failed")

    @staticmethod
    def _create(kernel: Any) -> int:
        import ctypes

        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        handle = kernel.CreateJobObjectW(None, None)
        limits = (ctypes.c_ubyte * LIMIT_SIZE)()
        ctypes.c_uint32.from_buffer(limits, FLAGS_AT).value = KILL_ON_CLOSE
        if not handle or not kernel.SetInformationJobObject(
            ctypes.c_void_p(handle), EXTENDED_LIMIT, limits, LIMIT_SIZE
        ):
            raise OSError("a job object cannot be made")
        return int(handle)


def pid_lives(pid: int) -> bool:
    """Whether a process of that number runs."""
    import ctypes

    kernel = _kernel32()
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(QUERY_LIMITED | SYNCHRONIZE, 0, pid)
    if not handle:
        return False
    try:
        return bool(kernel.WaitForSingleObject(ctypes.c_void_p(handle), 0) == STILL_RUNNING)
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))
