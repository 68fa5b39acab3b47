"""The door of a worker on tcp: who is let in, who is shown out, and how many may stand in front of it.

ZeroMQ asks it about every key (RFC 27), and tells it of every connection; it closes connections of revoked keys, and
the oldest of those that do not get through their handshake while there are too many.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Dict, List, Optional, Tuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from upx_protocol.allowlist import Allowlist
from upx_protocol.curve import DOMAIN, CurveKeys, key_text, secure

log = logging.getLogger("upx.door")

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
ZAP_PARTS = 7
#: Questions and events taken in one turn: a flood of either must not keep the clients waiting.
AT_A_TIME = 64
#: Connections that have not said a word yet, and those of one key; beyond it the oldest goes.
MAX_STRANGERS, MAX_HOMES = 1_024, 32
REFRESH_S, PARTING_S = 0.5, 0.5
#: Refusals are counted, and told at most so often: nobody fills a disk by knocking.
TELL_S = 10.0
EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED
Peer = Tuple[str, int]


class Door:
    """``sockets`` are to be polled with the worker's own; ``turn`` does what there is to do and never waits."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys, allowed: str = "") -> None:
        self._context, self._keys = context, keys
        self.allowed = Allowlist(key_text(keys.client_public), allowed)
        self._zap = context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(ZAP_ENDPOINT)
        self._events: Optional[zmq.Socket[bytes]] = None
        self._router: Optional[zmq.Socket[bytes]] = None
        self._strangers: OrderedDict[int, Optional[Peer]] = OrderedDict()
        self._gone: List[str] = []
        self._parting: Dict[str, float] = {}
        self._homes: Dict[str, Dict[int, Optional[Peer]]] = {}
        self._refreshed = self._told = time.monotonic()
        self._refused: Dict[str, int] = {}

    def guard(self, router: zmq.Socket[bytes]) -> None:
        """Make a socket a CURVE server whose connections are watched; before it binds."""
        _make_room()
        secure(router, self._keys)
        where = f"inproc://door-{id(self)}"
        self._events = self._context.socket(zmq.PAIR)
        # Without a limit: the transport's own thread would wait for us where it has one.
        self._events.setsockopt(zmq.RCVHWM, 0)
        self._events.setsockopt(zmq.LINGER, 0)
        router.monitor(where, EVENTS)
        self._events.connect(where)
        self._router = router

    @property
    def sockets(self) -> List[zmq.Socket[bytes]]:
        """What to wait for."""
        return [self._zap, *([self._events] if self._events is not None else [])]

    def caller(self, frame: zmq.Frame) -> str:
        """The key, in hexadecimal, of whoever sent a message; empty where it may not speak any more."""
        try:
            key, fd = str(frame.get("User-Id")), int(frame.get(zmq.SRCFD))
        except (zmq.ZMQError, ValueError):
            return ""
        if key not in self.allowed:
            return ""
        homes = self._homes.get(key)
        if homes is None or fd not in homes:
            self._settle(key, fd)
        return key

    def _settle(self, key: str, fd: int) -> None:
        """A connection's first message: now it is known whose it is."""
        self._strangers.pop(fd, None)
        self._forget(fd)
        homes = self._homes.setdefault(key, {})
        homes[fd] = _peer(fd)
        if len(homes) > MAX_HOMES:
            oldest = next(iter(homes))
            _shut(oldest, homes.pop(oldest))
            log.warning("%s has too many connections: the oldest is closed", self.allowed.name(key))

    def turn(self, now: float) -> List[str]:
        """Answer, watch, tell; the keys that were revoked since the last turn."""
        for _ in range(AT_A_TIME):
            if not self._answer():
                break
        self._watch()
        self._part(now)
        if now - self._told > TELL_S:
            self._tell(now)
        if now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._gone += self.allowed.refresh()
        gone, self._gone = self._gone, []
        return gone

    def show_out(self, key: str, now: float) -> None:
        """Close every connection of a key, once it had time to read why."""
        self._parting[key] = now + PARTING_S

    def _part(self, now: float) -> None:
        for key in [key for key, due in self._parting.items() if now >= due]:
            del self._parting[key]
            if key not in self.allowed:
                for fd, peer in self._homes.pop(key, {}).items():
                    _shut(fd, peer)

    def close(self) -> None:
        """Close the sockets."""
        if self._router is not None:
            self._router.disable_monitor()
        for each in self.sockets:
            each.close()

    # Keys

    def _answer(self) -> bool:
        try:
            parts = self._zap.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._zap.send_multipart(self._verdict(parts))
        return True

    def _verdict(self, parts: List[bytes]) -> List[bytes]:
        # version, request id, domain, address, identity, mechanism, credentials
        version, request = (*parts, b"", b"")[:2]
        asked = len(parts) == ZAP_PARTS and parts[2] == DOMAIN.encode() and parts[5] == b"CURVE"
        key = parts[6].hex() if asked else ""
        if key and key not in self.allowed:
            # It may have been allowed this very moment.
            self._gone += self.allowed.refresh()
        if version == ZAP_VERSION and key in self.allowed:
            return [ZAP_VERSION, request, b"200", b"OK", key.encode(), b""]
        self._refuse(f"key {key[:16]}… from {parts[3].decode('ascii', 'replace')}" if asked else "no key")
        return [ZAP_VERSION, request, b"400", b"not this key", b"", b""]

    def _refuse(self, who: str) -> None:
        first = not self._refused
        if who in self._refused or len(self._refused) < AT_A_TIME:
            self._refused[who] = self._refused.get(who, 0) + 1
        else:
            self._refused["others"] = self._refused.get("others", 0) + 1
        if first:
            log.warning("refused: %s", who)
            self._told = time.monotonic()

    def _tell(self, now: float) -> None:
        """Say how often was refused since the last word about it; nothing, once nobody knocks any more."""
        self._told = now
        again = {who: times for who, times in self._refused.items() if times > 1}
        if again:
            log.warning("refused: %s", ", ".join(f"{who} {times} times" for who, times in sorted(again.items())))
        self._refused.clear()

    # Connections

    def _watch(self) -> None:
        for _ in range(AT_A_TIME * 16):
            try:
                parts = self._events.recv_multipart(zmq.NOBLOCK) if self._events is not None else []
            except zmq.Again:
                break
            if not parts:
                break
            event = parse_monitor_message(parts)
            self._noted(int(event["event"]), int(event["value"]))
        while len(self._strangers) > MAX_STRANGERS:
            fd, peer = self._strangers.popitem(last=False)
            _shut(fd, peer)
            self._refuse("connections without a handshake")

    def _noted(self, event: int, fd: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._strangers[fd] = _peer(fd)
        else:
            self._strangers.pop(fd, None)
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        for homes in self._homes.values():
            homes.pop(fd, None)


def _make_room() -> None:
    """Descriptors for as many strangers as may stand here: the usual limit is for programs that open files."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8 * MAX_STRANGERS if hard == resource.RLIM_INFINITY else min(hard, 8 * MAX_STRANGERS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _peer(fd: int) -> Optional[Peer]:
    """The other end of a connection; None where there is none any more."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        return connection.getpeername()[:2]
    return None


def _shut(fd: int, peer: Optional[Peer]) -> None:
    """End a connection under ZeroMQ's hands, which then closes it; never one that is another's by now."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        if peer is not None and connection.getpeername()[:2] == peer:
            connection.shutdown(socket.SHUT_RDWR)
