"""Connections under ZeroMQ's hands, by their descriptors: the other end, what has come, and how to end one."""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import contextmanager, suppress
from typing import Generator, Tuple

Peer = Tuple[str, int]
NOWHERE: Peer = ("an unknown address", 0)
#: Where Linux's tcp_info has tcpi_bytes_received, since 4.1.
_BYTES_RECEIVED, _TCP_INFO_SIZE = 128, 136


def make_room(count: int) -> None:
    """Allow this process so many descriptors: the usual limit is for programs that open files."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(hard, count)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _connection(fd: int) -> Generator[socket.socket, None, None]:
    """The same connection by a descriptor of our own; OSError where there is none, or another's file by now."""
    own = os.dup(fd)
    try:
        connection = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise
    with connection:
        yield connection


def peer_of(fd: int) -> Peer:
    """The other end of a connection; NOWHERE where there is none any more."""
    with suppress(OSError), _connection(fd) as connection:
        return connection.getpeername()[:2]
    return NOWHERE


def shut(fd: int, peer: Peer) -> None:
    """End a connection under ZeroMQ's hands, which then closes it; never one that is another's by now."""
    with suppress(OSError), _connection(fd) as connection:
        if connection.getpeername()[:2] == peer:
            connection.shutdown(socket.SHUT_RDWR)


def received(fd: int, peer: Peer) -> int:
    """How many bytes have come from that peer, whether or not anybody has read them; 0 where that is not known."""
    if not sys.platform.startswith("linux"):
        return 0
    with suppress(OSError), _connection(fd) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        if connection.getpeername()[:2] == peer and len(info) == _TCP_INFO_SIZE:
            return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])
    return 0
