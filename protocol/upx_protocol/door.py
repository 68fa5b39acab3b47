"""The door of a worker on tcp: who is let in, who is shown out, and how many may stand in front of it.

ZeroMQ asks it about every key (RFC 27), and tells it of every connection. It closes connections of keys that were
revoked or that break the rules, and some of those that do not get through their handshake while there are too many.
"""

from __future__ import annotations

import logging
import struct
import time
from typing import Dict, List, Optional, Sequence, Set

import zmq

from upx_protocol.actions import Action, Send
from upx_protocol.allowlist import Allowlist
from upx_protocol.curve import DOMAIN, CurveKeys, key_text, secure
from upx_protocol.descriptors import NOWHERE, Peer, make_room, peer_of, received, shut
from upx_protocol.handshake import Reject
from upx_protocol.refusals import Refusals
from upx_protocol.strangers import Strangers

log = logging.getLogger("upx.door")

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
ZAP_PARTS = 7
#: Questions and events taken in one turn: a flood of either must not keep the clients waiting.
AT_A_TIME = 32
#: Seconds between two looks at who came and went: while there is more than that to see, something, and nothing.
CROWD_S, STIRRED_S, IDLE_S = 0.003, 0.01, 0.25
#: Connections that have not said a word yet, and those of one key; beyond it some go.
MAX_STRANGERS, MAX_HOMES = 1_024, 32
#: A Hello, the first that a host says, has 64 KiB at most. ZeroMQ takes a part of any size, key or no key, before it
#: looks at it, so that strangers could fill the memory: those who have sent more than this are shown out.
MOST_UNHEARD = 128 * 1024
WEIGH_S, WEIGHED = 0.05, 64
REFRESH_S, PARTING_S = 0.25, 0.25
#: What no host that keeps to the protocol is ever told. A key that is, so often in so many seconds, is kept out for as
#: many: what is refused costs the others as much time as what is not.
OFFENCES = ("malformed", "credit", "forbidden")
MAX_OFFENCES, PENANCE_S = 32, 10.0
EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED


class Door:
    """``attend`` says what to wait for; ``turn`` does what there is to do and never waits.

    The first connection after a while wakes whoever waits, so that its address is read before it is gone. While there
    are more they wake nobody, or a crowd would do it thousands of times a second: they are looked at every now and
    then, and as many at a time as cost a client half a millisecond.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys, allowed: str = "") -> None:
        self._context, self._keys = context, keys
        self.allowed = Allowlist(key_text(keys.client_public), allowed)
        self._zap = context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(ZAP_ENDPOINT)
        self._pause, self._watch_at, self._weigh_at = IDLE_S, 0.0, 0.0
        self._events: Optional[zmq.Socket[bytes]] = None
        self._router: Optional[zmq.Socket[bytes]] = None
        self._poller: Optional[zmq.Poller] = None
        self._strangers = Strangers(MAX_STRANGERS)
        # Connections that have spoken: those of each key, oldest first, and whose each is.
        self._homes: Dict[str, Dict[int, Peer]] = {}
        self._key_at: Dict[int, str] = {}
        self._route_at: Dict[int, bytes] = {}
        # Descriptors of connections that had spoken when one was told to have come there.
        self._came_late: Set[int] = set()
        self._gone: List[str] = []
        self._parting: Dict[str, float] = {}
        self._offences: Dict[str, int] = {}
        self._kept_out: Dict[str, float] = {}
        self._refreshed = self._forgiven = time.monotonic()
        self._refusals = Refusals(self._refreshed)
        # Connections that are about to end since their key was refused, which has been told.
        self._refused = 0

    def guard(self, router: zmq.Socket[bytes]) -> None:
        """Make a socket a CURVE server whose connections are watched; before it binds."""
        make_room(8 * MAX_STRANGERS)
        secure(router, self._keys)
        where = f"inproc://door-{id(self)}"
        self._events = self._context.socket(zmq.PAIR)
        # Without a limit: the transport's own thread would wait for us where it has one.
        self._events.setsockopt(zmq.RCVHWM, 0)
        self._events.setsockopt(zmq.LINGER, 0)
        router.monitor(where, EVENTS)
        self._events.connect(where)
        self._router = router

    def attend(self, poller: zmq.Poller) -> None:
        """Have whoever waits with it woken."""
        self._poller = poller
        poller.register(self._zap, zmq.POLLIN)
        poller.register(self._events, zmq.POLLIN)

    @property
    def patience_ms(self) -> int:
        """How long the next turn may wait."""
        soon = STIRRED_S if self._parting else WEIGH_S if self._strangers else IDLE_S
        return int(1000 * min(self._pause, soon))

    def turn(self, now: float) -> List[str]:
        """Answer, watch, tell; the keys that were revoked since the last turn."""
        self._answer()
        if now >= self._watch_at or self._pause == IDLE_S:
            self._watch()
            self._watch_at = now + self._pause
        if now >= self._weigh_at:
            self._weigh()
            self._weigh_at = now + WEIGH_S
        self._part(now)
        self._refusals.tell(now)
        if now - self._forgiven >= PENANCE_S:
            self._forgiven = now
            self._offences.clear()
        if now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._gone += self.allowed.refresh()
        gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        """Close the sockets, and tell what was not told yet."""
        self._poller = None
        # Not without an end: a crowd still comes and goes.
        for _ in range(MAX_STRANGERS):
            self._watch()
            if self._pause != CROWD_S:
                break
        if self._router is not None:
            self._router.disable_monitor()
        if self._events is not None:
            self._events.close()
        self._zap.close()
        self._refusals.tell_all()

    # Clients

    def caller(self, frame: zmq.Frame) -> str:
        """The key, in hexadecimal, of whoever sent a message; empty where it may not speak any more."""
        try:
            key, fd = str(frame.get("User-Id")), int(frame.get(zmq.SRCFD))
        except (zmq.ZMQError, ValueError):
            return ""
        if key not in self.allowed or self._keeps_out(key):
            return ""
        # A new route is a new connection, also where its descriptor was that of one whose end was not told yet.
        if self._key_at.get(fd) != key or self._route_at.get(fd) != frame.bytes:
            self._settle(key, fd, frame.bytes)
        return key

    def _settle(self, key: str, fd: int, route: bytes) -> None:
        """A connection's first message: now it is known whose it is.

        One that is read after its connection has ended may name a stranger's, which then counts as one of this key's
        until it ends: all that comes of it is that nobody tells of that stranger.
        """
        peer = self._strangers.pop(fd) or peer_of(fd)
        self._forget(fd)
        homes = self._homes.setdefault(key, {})
        homes[fd], self._key_at[fd], self._route_at[fd] = peer, key, route
        if len(homes) > MAX_HOMES:
            oldest = next(iter(homes))
            shut(oldest, homes[oldest])
            self._forget(oldest)
            self._refusals.note("one of too many connections", self.allowed.name(key))

    def _forget(self, fd: int) -> None:
        key = self._key_at.pop(fd, None)
        self._route_at.pop(fd, None)
        self._came_late.discard(fd)
        if key is not None:
            del self._homes[key][fd]
            if not self._homes[key]:
                del self._homes[key]

    def show_out(self, key: str, now: float) -> None:
        """Close every connection of a key that was revoked, once it had time to read why."""
        log.warning("key %s… was revoked: its sessions end", key[:16])
        self._parting[key] = now + PARTING_S

    def _part(self, now: float) -> None:
        for key in [key for key, due in self._parting.items() if now >= due]:
            del self._parting[key]
            if key not in self.allowed:
                self._shut_all(key)

    def _shut_all(self, key: str) -> None:
        for fd, peer in list(self._homes.get(key, {}).items()):
            shut(fd, peer)
            self._forget(fd)

    # Rules

    def heed(self, key: str, answers: Sequence[Action], now: float) -> bool:
        """What a client's message was answered with; True when the client is kept out from here on."""
        for answer in answers:
            if isinstance(answer, Send) and isinstance(answer.message, Reject) and answer.message.reason in OFFENCES:
                self._refusals.note(f"a message ({answer.message.reason})", self.allowed.name(key))
                self._offences[key] = self._offences.get(key, 0) + 1
        if self._offences.get(key, 0) < MAX_OFFENCES:
            return False
        log.warning("%s breaks the rules again and again: kept out for %.0f s", self.allowed.name(key), PENANCE_S)
        del self._offences[key]
        self._kept_out[key] = now + PENANCE_S
        self._shut_all(key)
        return True

    def _keeps_out(self, key: str) -> bool:
        until = self._kept_out.get(key)
        if until is None:
            return False
        if time.monotonic() >= until:
            del self._kept_out[key]
        return key in self._kept_out

    # Keys

    def _answer(self) -> None:
        for _ in range(AT_A_TIME):
            if not _has_news(self._zap):
                return
            self._zap.send_multipart(self._verdict(self._zap.recv_multipart(zmq.NOBLOCK)))

    def _verdict(self, parts: List[bytes]) -> List[bytes]:
        # version, request id, domain, address, identity, mechanism, credentials
        version, request = (*parts, b"", b"")[:2]
        asked = len(parts) == ZAP_PARTS and parts[2] == DOMAIN.encode() and parts[5] == b"CURVE"
        key, address = (parts[6].hex(), parts[3].decode("ascii", "replace")) if asked else ("", NOWHERE[0])
        if key and key not in self.allowed:
            # It may have been allowed this very moment.
            self._gone += self.allowed.refresh()
        known = version == ZAP_VERSION and key in self.allowed
        if known and not self._keeps_out(key):
            return [ZAP_VERSION, request, b"200", b"OK", key.encode(), b""]
        self._refused += 1
        if known:
            self._refusals.note("a client that is kept out", self.allowed.name(key))
            # A host tries again by itself after this, and never after a 400.
            return [ZAP_VERSION, request, b"300", b"not now", b"", b""]
        self._refusals.note("a key that is not allowed", address, key[:16] + "…")
        return [ZAP_VERSION, request, b"400", b"not this key", b"", b""]

    # Connections

    def _watch(self) -> None:
        seen = 0
        while seen < AT_A_TIME and self._events is not None and _has_news(self._events):
            event, _address = self._events.recv_multipart(zmq.NOBLOCK)
            self._noted(*struct.unpack("=hi", event))
            seen += 1
        self._pause = CROWD_S if seen == AT_A_TIME else STIRRED_S if seen else IDLE_S
        if self._poller is not None and self._events is not None:
            self._poller.register(self._events, 0 if seen else zmq.POLLIN)
        while (surplus := self._strangers.one_too_many()) is not None:
            shut(*surplus)
            self._refusals.note("one of too many connections without a word", surplus[1][0])

    def _weigh(self) -> None:
        for fd, peer in self._strangers.some(WEIGHED):
            if received(fd, peer) > MOST_UNHEARD:
                self._strangers.pop(fd)
                shut(fd, peer)
                self._refusals.note("too many bytes without a word", peer[0])

    def _noted(self, event: int, fd: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            peer = peer_of(fd)
            # What it said may have been read before this, and it may be gone by now.
            home = self._homes.get(self._key_at.get(fd, ""), {}).get(fd)
            if home is None or peer not in {home, NOWHERE}:
                # A last word that was read after its connection had ended must not pass for this one's first.
                self._forget(fd)
                self._strangers.add(fd, peer)
            else:
                # Its own coming, or that of a stranger before it, whose end is then told of as well.
                self._came_late.add(fd)
            return
        home = self._homes.get(self._key_at.get(fd, ""), {}).get(fd)
        if home is not None and home != NOWHERE and peer_of(fd) == home:
            # The end of an earlier one: the descriptor is another's by now, who has spoken already.
            left = NOWHERE if fd in self._came_late else None
            self._came_late.discard(fd)
        else:
            self._forget(fd)
            left = self._strangers.pop(fd)
        if left is not None and self._refused:
            self._refused -= 1
        elif left is not None:
            self._refusals.note("a connection without a word", left[0])


def _has_news(it: zmq.Socket[bytes]) -> bool:
    """Asked first, since an exception where there is none costs more than the answer."""
    return bool(int(it.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
