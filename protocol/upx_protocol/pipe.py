"""The short way: two pipes beside a ring, for the messages that say where tiles lie.

    [length, two bytes, little endian][header] …

ZeroMQ hands every message to a thread of its own, on both sides: that is what a tile that lies in shared memory would
wait for. A message goes into a pipe in one write and is never there in part; what is longer than that goes through the
socket. ``protocol/README.md`` has the rules.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

if TYPE_CHECKING:
    from upx_protocol.messages import Ring

_LENGTH = struct.Struct("<H")
#: No write of up to PIPE_BUF bytes comes apart (POSIX): 4,096 on Linux, which alone has rings.
LONGEST = 4_096 - _LENGTH.size
_CAPACITY = 65_536


class Pipe:
    """One side's two ends. ``ended``: nobody is at the other ends, or what came was no message."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._rest = b""
        self.ended = False

    def fileno(self) -> int:
        """The descriptor that becomes readable when something comes."""
        return self._reader

    def send(self, header: Any) -> bool:
        """Send a message without waiting; False where it does not go this way."""
        if len(header) > LONGEST or self.ended:
            return False
        try:
            return os.write(self._writer, _LENGTH.pack(len(header)) + header) > 0
        except OSError:
            # No room, or nobody there: whether the other process lives is for others to find out.
            return False

    def receive(self) -> List[bytes]:
        """The messages that have come."""
        try:
            came = os.read(self._reader, _CAPACITY)
        except BlockingIOError:
            return []
        self.ended = not came
        came, begin = self._rest + came, 0
        messages: List[bytes] = []
        while len(came) - begin >= _LENGTH.size:
            data = begin + _LENGTH.size
            end = data + _LENGTH.unpack_from(came, begin)[0]
            if end - data > LONGEST:
                self.ended = True
                break
            if end > len(came):
                break
            messages.append(came[data:end])
            begin = end
        self._rest = came[begin:]
        return messages

    def close(self) -> None:
        """Close both ends; once."""
        self.ended = True
        os.close(self._reader)
        os.close(self._writer)


class Ends:
    """A worker's two ends while they are on offer: it opens them where the host has them."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer

    def fields(self) -> Dict[str, int]:
        """What ``Ring`` says of them."""
        return {
            "reader": self._reader,
            "reader_inode": os.fstat(self._reader).st_ino,
            "writer": self._writer,
            "writer_inode": os.fstat(self._writer).st_ino,
        }

    def close(self) -> None:
        """The worker has opened them, or never will: from here on each side sees the other's end."""
        os.close(self._reader)
        os.close(self._writer)


def create() -> Tuple[Pipe, Ends]:
    """A host's ends, and those to offer to a worker; OSError where there can be none."""
    if sys.platform != "linux":
        raise OSError("only Linux opens another process's pipes")
    theirs_in, ours_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        ours_in, theirs_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except BaseException:
        os.close(theirs_in)
        os.close(ours_out)
        raise
    return Pipe(ours_in, ours_out), Ends(theirs_in, theirs_out)


def connect(offer: Ring) -> Pipe:
    """Open a worker's ends of the pipes that a host offers; OSError or ValueError where they are not what it says."""
    reader = _open(offer.pid, offer.reader, offer.reader_inode, os.O_RDONLY)
    try:
        return Pipe(reader, _open(offer.pid, offer.writer, offer.writer_inode, os.O_WRONLY))
    except BaseException:
        os.close(reader)
        raise


def _open(pid: int, fd: int, inode: int, mode: int) -> int:
    if pid < 1 or fd < 0:
        raise ValueError("no pipe has this place")
    path = f"/proc/{pid}/fd/{fd}"
    # Looked at before it is opened: a device may do anything.
    _check(os.stat(path), inode)  # noqa: PTH116  pathlib is 10 ms late
    opened = os.open(path, mode | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check(os.fstat(opened), inode)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _check(found: os.stat_result, inode: int) -> None:
    if not stat.S_ISFIFO(found.st_mode) or found.st_ino != inode or found.st_uid != os.getuid():
        raise ValueError("there is no such pipe on this machine")
