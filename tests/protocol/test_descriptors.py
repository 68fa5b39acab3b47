"""Connections by their descriptors, which may be anybody's by the time that they are looked at."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from upx_protocol.descriptors import NOWHERE, peer_of, received, shut

if TYPE_CHECKING:
    from collections.abc import Callable

LOOKS = [peer_of, lambda fd: shut(fd, NOWHERE), lambda fd: received(fd, NOWHERE)]


def next_free() -> int:
    """The descriptor that whatever is opened next will have."""
    fd = os.dup(0)
    os.close(fd)
    return fd


@pytest.mark.parametrize("look", LOOKS, ids=["peer_of", "shut", "received"])
def test_a_look_at_what_is_no_socket_leaves_no_descriptor_behind(look: Callable[[int], object]) -> None:
    reader, writer = os.pipe()
    before = next_free()
    for _ in range(3):
        assert look(reader) in (NOWHERE, None, 0)
    assert next_free() == before
    os.close(reader)
    os.close(writer)
    assert look(reader) in (NOWHERE, None, 0), "nor at one that is closed"


def test_a_look_leaves_the_connection_open_and_shut_ends_that_of_the_peer_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, peer = listener.accept()
        with accepted:
            before, fd = next_free(), accepted.fileno()
            assert peer_of(fd) == peer
            shut(fd, ("127.0.0.1", 1))
            accepted.sendall(b"here")
            assert client.recv(4) == b"here"
            shut(fd, peer)
            assert client.recv(1) == b""
            assert next_free() == before
