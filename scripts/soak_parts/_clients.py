"""Attackers that speak the protocol: with keys that nobody allowed, with one that is revoked, and with bad manners."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import zmq
from _targets import DEADLINE_S, LOOPBACK
from zmq.utils.monitor import parse_monitor_message

from upx_protocol.codec import decode, encode
from upx_protocol.messages import Hello, Load, Loaded, Message, Ping, Reject, TileDone, Upscale, Welcome
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _targets import Done, Going, Target

M = TypeVar("M", bound=Message)
# As the client that is served says it: the box makes the key of a load from all of this.
LOADED_WITH = {"load_delay": 0.0, "load_fail": ""}
TILE = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)


def wrong_keys(target: Target, done: Done, going: Going) -> None:
    """One key after the other that nobody allowed."""
    while going():
        public, secret = (key.decode() for key in zmq.curve_keypair())
        with Dealer(target, public, secret) as it:
            done.connections += 1
            if it.let_in():
                done.problem = "a stranger was let in"
            done.refused += 1


def bad_client(target: Target, done: Done, going: Going) -> None:
    """Headers that are too large, more than its credit, parts without end."""
    rng = random.Random(target.seed)

    def misbehave(it: Dealer) -> None:
        done.sent += it.send([rng.randbytes(100_000)])
        done.sent += it.upscale(64)
        done.sent += it.send(encode(Hello(1, OLDEST, NEWEST)) * 300)
        it.say(Ping(1))
        done.refused += sum(isinstance(message, Reject) for message in it.heard())

    _misbehave(target, done, going, misbehave)


def miser(target: Target, done: Done, going: Going) -> None:
    """A client that never returns its credit: it asks for all that it may have, reads nothing of it, and asks again."""

    def ask(it: Dealer) -> None:
        done.sent += it.upscale(8)

    # What ZeroMQ and the kernel would take in its place is kept small.
    _misbehave(target, done, going, ask, {zmq.RCVHWM: 1, zmq.RCVBUF: 4096})


def _misbehave(
    target: Target, done: Done, going: Going, what: Callable[[Dealer], None], options: dict[int, int] | None = None
) -> None:
    """Do it a hundred times a second; come again when shown out."""
    while going():
        with Dealer(target, target.public, target.secret, options) as it:
            done.connections += 1
            if not it.let_in():
                done.refused += 1
                time.sleep(0.01)
                continue
            it.load()
            while going() and not it.lost():
                what(it)
                time.sleep(0.01)
            done.closed += it.is_lost


def revoked(target: Target, done: Done, going: Going) -> None:
    """Keeps the worker busy, until its key is revoked and for as long as it can; then knocks with it again."""
    with Dealer(target, target.public, target.secret) as it:
        done.connections += 1
        it.load()
        waiting = 0
        while going() and not it.lost():
            # Within its credit, or it would be shown out for that.
            if waiting < 4:
                done.sent += it.upscale(1)
                waiting += 1
            it.socket.poll(20)
            for message in it.heard():
                if isinstance(message, TileDone):
                    waiting -= 1
                    done.served += 1
                    done.times["served"] = time.time()
                elif isinstance(message, Reject):
                    waiting = 0
                    done.times.setdefault(message.reason, time.time())
        if it.is_lost:
            done.closed += 1
            done.times["closed"] = time.time()
    while going():
        with Dealer(target, target.public, target.secret) as it:
            done.connections += 1
            if it.let_in():
                done.problem = "a revoked key was let in again"
            done.refused += 1


class Dealer:
    """A client's socket and what becomes of its connection. Every wait has an end: TimeoutError."""

    def __init__(self, target: Target, public: str, secret: str, options: dict[int, int] | None = None) -> None:
        self.session, self.load_id, self.is_lost = "", "", False
        self._port, self._numbers = target.port, 0
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        # One that comes again by itself would hide that it was shown out.
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt(zmq.SNDTIMEO, int(1000 * DEADLINE_S))
        keys = {zmq.CURVE_SERVERKEY: target.server, zmq.CURVE_PUBLICKEY: public, zmq.CURVE_SECRETKEY: secret}
        for name, value in {**(options or {}), **{name: key.encode() for name, key in keys.items()}}.items():
            self.socket.setsockopt(name, value)
        self._events = self.socket.get_monitor_socket()

    def __enter__(self) -> Self:
        self.socket.connect(f"tcp://{LOOPBACK}:{self._port}")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.disable_monitor()
        self._events.close(0)
        self.socket.close()
        self._context.term()

    def let_in(self) -> bool:
        """How the handshake ends."""
        while self._events.poll(1000 * DEADLINE_S):
            event = parse_monitor_message(self._events.recv_multipart())["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return True
            if event in {zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_DISCONNECTED}:
                return False
        raise TimeoutError("neither let in nor refused")

    def lost(self) -> bool:
        """Whether the connection has ended."""
        while not self.is_lost and self._events.poll(0):
            self.is_lost = parse_monitor_message(self._events.recv_multipart())["event"] == zmq.EVENT_DISCONNECTED
        return self.is_lost

    def load(self) -> None:
        """A session, and the model that is resident: no other would be given to one of two clients."""
        self.say(Hello(1, OLDEST, NEWEST))
        welcome = self._await(Welcome)
        self.session = welcome.session
        self.say(Load(2, "attack", "nearest-x4", precision="auto", params=LOADED_WITH))
        self.load_id = self._await(Loaded).load_id

    def upscale(self, tiles: int) -> int:
        """Ask for a batch; the bytes sent."""
        self._numbers += 1
        return self.say(Upscale(self._numbers, 0, self.load_id, ()), [TILE] * tiles)

    def say(self, message: Message, arrays: Sequence[np.ndarray] = ()) -> int:
        return self.send(encode(message, session=self.session, arrays=arrays))

    def send(self, parts: Sequence) -> int:
        """The bytes sent: none where the connection is gone, or takes no more just now."""
        try:
            self.socket.send_multipart(list(parts), zmq.NOBLOCK)
        except zmq.Again:
            return 0
        return sum(len(memoryview(part).cast("B")) for part in parts)

    def heard(self) -> list[Message]:
        """What has come."""
        found = []
        while self.socket.poll(0):
            found.append(decode(self.socket.recv_multipart()).message)
        return found

    def _await(self, kind: type[M]) -> M:
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            if self.socket.poll(100):
                message = decode(self.socket.recv_multipart()).message
                if isinstance(message, kind):
                    return message
        raise TimeoutError(f"no {kind.__name__} came")
