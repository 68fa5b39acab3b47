"""A ring: memory that a host and one worker of the same machine both map, so that tiles lie there and do not travel.

    unit 0                      unit 3                  a slot is named by its first unit;
    [stamp 64 B][data … ]       [stamp 64 B][data … ]   the stamp holds its generation, twice where it is begun

The host makes it, and says which slot is whose and when. It has no name: the worker opens the host's descriptor, and
the kernel frees it with the last process that maps it. It is sealed, so that nobody can make it shorter under
somebody else's feet. ``protocol/README.md`` has the rules.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any, Callable, Optional

from upx_protocol.arrays import view
from upx_protocol.errors import TransientError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_protocol.messages import Buffer, Ring

#: The feature's name in ``Hello`` and ``Welcome``.
SHM = "shm"
#: Bytes of a unit; bytes in front of a slot's data: eight for its generation, eight for that of a batch that is begun.
UNIT, STAMP_BYTES = 4_096, 64
#: The largest ring that a worker maps.
MAX_RING = 1 << 32
#: What a worker says of a slot that it must not touch begins with this.
COMPLAINT = "ring: "

_STAMP, _BOTH = struct.Struct("<q"), struct.Struct("<qq")
# Linux's own numbers: not every Python was built where they have names.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4  # SEAL, SHRINK, GROW
_CLOEXEC, _ALLOW_SEALING = 0x1, 0x2


def units_of(nbytes: int) -> int:
    """Units that an array of so many bytes takes."""
    return -(-(STAMP_BYTES + nbytes) // UNIT)


def supported() -> bool:
    """Whether this system has memory without a name that two processes can share."""
    return _maker() is not None and os.path.isdir("/proc/self/fd")  # noqa: PTH112  pathlib is 10 ms late


class Memory:
    """A ring that is mapped, here or there. What is read from it keeps the mapping alive."""

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self._map = mmap.mmap(fd, size)

    def holds(self, buffer: Buffer) -> bool:
        """Whether a buffer's slot lies within the ring."""
        return buffer.slot >= 0 and buffer.slot * UNIT + STAMP_BYTES + buffer.nbytes <= self.size

    def stamp(self, slot: int, gen: int) -> None:
        """Give a slot its generation; 0 for a slot that is nobody's. Nothing of it is begun."""
        _BOTH.pack_into(self._map, slot * UNIT, gen, 0)

    def stamped(self, buffer: Buffer) -> bool:
        """Whether a buffer's slot is still of the generation that it was given in."""
        return _STAMP.unpack_from(self._map, buffer.slot * UNIT)[0] == buffer.gen

    def begin(self, buffer: Buffer) -> None:
        """Note in the first tile's slot that its batch is being computed: what is noted here outlives the worker."""
        _STAMP.pack_into(self._map, buffer.slot * UNIT + _STAMP.size, buffer.gen)

    def begun(self, buffer: Buffer) -> bool:
        """Whether a batch, of which this is the first tile, was begun."""
        return _STAMP.unpack_from(self._map, buffer.slot * UNIT + _STAMP.size)[0] == buffer.gen

    def data(self, buffer: Buffer) -> Any:
        """The bytes of a buffer's slot, as an object of their own that can be watched by a weak reference."""
        return (ctypes.c_ubyte * buffer.nbytes).from_buffer(self._map, buffer.slot * UNIT + STAMP_BYTES)

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """A slot's array, read-only, where it lies."""
        return view(buffer, self.data(buffer))

    def room(self, buffer: Buffer) -> NDArray[Any]:
        """A slot's array to be written; TransientError when the slot was given to somebody else meanwhile."""
        if not self.stamped(buffer):
            raise TransientError(f"{COMPLAINT}slot {buffer.slot} is not of generation {buffer.gen} any more")
        return view(buffer, self.data(buffer), writeable=True)

    def forget(self, start: int, units: int) -> None:
        """Give the memory of units that are nobody's back to the system; they read as zeros from here on."""
        if sys.platform == "linux":
            self._map.madvise(mmap.MADV_REMOVE, start * UNIT, units * UNIT)


def create(size: int) -> int:
    """A descriptor of ``size`` bytes of shared memory, zero and not yet used; OSError where it cannot be had."""
    make = _maker()
    if make is None or sys.platform != "linux":
        raise OSError("this system has no shared memory without a name")
    import fcntl

    fd = make()
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def attach(offer: Ring) -> Memory:
    """Map the ring that a host offers; OSError or ValueError where it is not what the offer says.

    Only memory of that very inode that nobody can make shorter is mapped: any other file could end in SIGBUS.
    """
    if sys.platform != "linux":
        raise OSError("this system has no shared memory without a name")
    import fcntl

    if not UNIT <= offer.size <= MAX_RING or offer.pid < 1 or offer.fd < 0:
        raise ValueError("no ring has this size or place")
    path = f"/proc/{offer.pid}/fd/{offer.fd}"
    # Looked at before it is opened: opening a pipe would wait, and a device may do anything.
    _check(os.stat(path), offer)  # noqa: PTH116  pathlib is 10 ms late
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        _check(os.fstat(fd), offer)
        if fcntl.fcntl(fd, _GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("the ring is not sealed")
        return Memory(fd, offer.size)
    finally:
        os.close(fd)


def _check(found: os.stat_result, offer: Ring) -> None:
    if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != (offer.device, offer.inode):
        raise ValueError("there is no such ring on this machine")
    if found.st_size != offer.size or found.st_uid != os.getuid():
        raise ValueError("the ring has another size or owner")


def _maker() -> Optional[Callable[[], int]]:
    """What makes a nameless file in memory; a Python built for an old C library has no function for it."""
    if sys.platform != "linux":
        return None
    if hasattr(os, "memfd_create"):
        return lambda: os.memfd_create("upx-ring", _CLOEXEC | _ALLOW_SEALING)
    libc = ctypes.CDLL(None, use_errno=True)
    return (lambda: _called(libc)) if hasattr(libc, "memfd_create") else None


def _called(libc: ctypes.CDLL) -> int:
    fd = int(libc.memfd_create(b"upx-ring", _CLOEXEC | _ALLOW_SEALING))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "memfd_create")
    return fd
