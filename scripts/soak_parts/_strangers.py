"""Attackers without a key: bytes that are none of ZeroMQ's, bytes that once were, and next to none."""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from _targets import DEADLINE_S, LOOPBACK

if TYPE_CHECKING:
    from _targets import Done, Going, Target

# More than the 1,024 that may stand before a box without a word.
CROWD = 1_200
# A greeting and a WELCOME of CURVE; READY, and every message after it, would need the secret of the moment.
MOST_SAID = 400
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(48)


def noise(target: Target, done: Done, _going: Going) -> None:
    """Random bytes over many connections, half of which begin as ZeroMQ's: all of them, however long it takes."""
    block = np.random.default_rng(target.seed).bytes(target.nbytes // target.connections)
    waiting: deque[socket.socket] = deque()
    for number in range(target.connections):
        it = _connected(target, done)
        _send(it, (GREETING if number % 2 else b"") + block, done)
        waiting.append(it)
        if len(waiting) > 8:
            _await_end(waiting.popleft(), done)
    while waiting:
        _await_end(waiting.popleft(), done)


def loris(target: Target, done: Done, going: Going) -> None:
    """A crowd that says nothing, or a byte now and then; who is shown out comes again."""
    crowd: dict[int, socket.socket] = {}
    poller = select.poll()
    while going():
        while len(crowd) < CROWD and going():
            it = _connected(target, done)
            crowd[it.fileno()] = it
            poller.register(it, select.POLLIN)
        for fd, _ in poller.poll(100):
            if has_ended(crowd[fd]):
                done.closed += 1
                poller.unregister(fd)
                crowd.pop(fd).close()
        for it in list(crowd.values())[::16]:
            with suppress(ConnectionError):
                done.sent += it.send(b"\xff")
    for it in crowd.values():
        it.close()


def replay(target: Target, done: Done, going: Going) -> None:
    """What a good client once said, byte for byte, from another connection."""
    said = bytes.fromhex(target.said)
    while going():
        it = _connected(target, done)
        _send(it, said, done)
        heard = _await_end(it, done)
        if len(heard) > MOST_SAID or b"READY" in heard:
            done.problem = f"a replay was answered with {len(heard)} bytes"


def _connected(target: Target, done: Done) -> socket.socket:
    done.connections += 1
    return socket.create_connection((LOOPBACK, target.port), timeout=DEADLINE_S)


def _send(it: socket.socket, what: bytes, done: Done) -> None:
    """Send all of it, or what the other side takes before it hangs up."""
    sent = 0
    with suppress(ConnectionError):
        while sent < len(what):
            size = it.send(what[sent:])
            sent += size
            done.sent += size


def _await_end(it: socket.socket, done: Done) -> bytes:
    """What the other side says until it hangs up; TimeoutError when it does not."""
    heard = b""
    with it:
        with suppress(ConnectionError):
            _say_no_more(it)
            while part := it.recv(65_536):
                heard += part
        done.closed += 1
    return heard


def _say_no_more(it: socket.socket) -> None:
    try:
        it.shutdown(socket.SHUT_WR)
    except OSError as error:
        # Python has no class of its own for a connection that the other side has ended already.
        if error.errno != errno.ENOTCONN:
            raise


def has_ended(it: socket.socket) -> bool:
    """Whether the other side has hung up; a greeting is no end."""
    try:
        return not it.recv(256)
    except ConnectionError:
        return True
