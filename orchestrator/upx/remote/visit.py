"""A short visit to a box, outside of any job: who it is, what it serves, how far away it is."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from upx.errors import WorkerError
from upx.remote.keys import KeyRing, z85
from upx.workers import faults
from upx.workers.channel import Hub
from upx.workers.words import tame, told_ports
from upx_protocol.arrays import CHANNELS
from upx_protocol.messages import Bye, Echo, Echoed, Hello, Message, Ping, Pong, Ready, Reject, Welcome
from upx_protocol.version import NEWEST, OLDEST, Version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.config import Settings
    from upx.remote.boxes import Box
    from upx.workers.channel import Channel

HELLO_S, READY_S = 10.0, 60.0
PINGS = 10
# Enough to fill a long link, little enough for a slow one; the second pass is only for fast ones.
PROBE_SIDES = (256, 1024)
FAST_S = 0.25
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Visit:
    """One worker of a box. ``latency`` in seconds, there and back; ``rate`` in bytes a second, each way; 0: unknown."""

    box: Box
    ports: tuple[int, ...]
    protocol: Version
    ready: Ready
    pong: Pong
    latency: float = 0.0
    rate: float = 0.0


def visit(box: Box, settings: Settings, *, measure: bool = False) -> Visit:
    """Ask a box's first worker who it is.

    WorkerError and its subclasses where it cannot be reached, does not hold the pinned key, or does not let us in;
    ProtocolVersionError names both ranges.
    """
    keys = KeyRing(settings).client()
    with closing(Hub()) as hub:
        channel = hub.connect(box.endpoint, server_key=z85(box.key), keys=keys, far=True)
        guest = _Guest(box, hub, channel)
        try:
            return guest.look(measure=measure)
        finally:
            channel.send(Bye("visited"), session=guest.session)
            channel.close(linger=0.2)


def survey(box: Box, settings: Settings, *, measure: bool = True) -> Iterator[Visit]:
    """Every worker of a box, one after the other; raises as ``visit`` does where one cannot be reached."""
    first = visit(box, settings, measure=measure)
    yield first
    for port in first.ports:
        if port != box.port:
            yield visit(replace(box, endpoint=box.at(port)), settings, measure=measure)


class _Guest:
    """One conversation with one worker."""

    def __init__(self, box: Box, hub: Hub, channel: Channel) -> None:
        self._box, self._hub, self._channel = box, hub, channel
        self.session = ""
        self._number = 0

    def look(self, *, measure: bool) -> Visit:
        self._channel.send(Hello(1, OLDEST, NEWEST, host="upx worker test"))
        welcome = self._await(Welcome, HELLO_S)
        self.session = welcome.session
        ready = _tamed(self._await(Ready, READY_S))
        pong, latency = self._ping()
        box = replace(self._box, backend=tame(welcome.backend))
        found = Visit(box, told_ports(welcome.ports) or (box.port,), welcome.protocol, ready, pong, latency)
        return replace(found, rate=self._rate(latency, welcome.credit_bytes)) if measure else found

    def _ping(self) -> tuple[Pong, float]:
        trips: list[float] = []
        pong = Pong(0)
        for number in range(PINGS):
            began = time.perf_counter()
            self._channel.send(Ping(number), session=self.session)
            pong = self._await(Pong, HELLO_S)
            trips.append(time.perf_counter() - began)
        return pong, statistics.median(trips)

    def _rate(self, latency: float, most: int) -> float:
        """Bytes a second, by tiles of at most so many bytes: a box that has many hosts gives each little credit."""
        rate = 0.0
        for side in PROBE_SIDES:
            if side * side * CHANNELS > most:
                break
            # Noise: a tunnel that compresses must not look like a fast one.
            tile = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
            began = time.perf_counter()
            self._channel.send(Echo(self._next(), ()), session=self.session, arrays=[tile])
            self._await(Echoed, READY_S)
            took = max(1e-6, time.perf_counter() - began - latency)
            rate = 2 * tile.nbytes / took
            if took > FAST_S:
                break
        return rate

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _await(self, kind: type[M], seconds: float) -> M:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._hub.wait(min(0.2, until - time.monotonic()))
            gone = self._channel.gone
            for received in self._channel.receive():
                message = getattr(received, "message", None)
                if isinstance(message, kind):
                    return message
                if isinstance(message, Reject):
                    raise self._refused(message)
            if gone:
                raise faults.unreachable(self._box.name, self._channel.why)
        raise faults.unreachable(self._box.name, "it does not answer")

    def _refused(self, reject: Reject) -> WorkerError:
        if reject.reason == "version":
            return faults.foreign(self._box.name, reject)
        why = tame(reject.message or reject.reason)
        return WorkerError(f"{self._box.name} refuses us: {why}", hint="try again later")


def _tamed(ready: Ready) -> Ready:
    """What a box says of itself, fit to be shown."""
    models = tuple(tame(each) for each in ready.models)
    return replace(ready, device=tame(ready.device), device_name=tame(ready.device_name), models=models)
