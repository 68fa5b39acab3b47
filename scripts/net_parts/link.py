"""One cable between the host and a box: its rate, delay and loss, and what happens when it is pulled.

Where the kernel has netem, a link is a veth pair with netem at both ends. Elsewhere it is a TUN device at each end,
tbf in front of them for the rate, and the shaper between them for delay and loss. ``way()`` says which.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, Protocol

from namespaces import LabError, command, make, named_lab, remove
from shaper import Shaper

Towards = Literal["both", "box", "host"]
MTU = 1500
# The least that a queue holds, as drivers have it; more where more is under way.
QUEUE_PACKETS = 1000


@dataclass(frozen=True)
class Shape:
    """Bits a second, seconds one way, and the share of packets lost each way; a rate of 0 is as fast as it goes."""

    rate: float = 0.0
    delay: float = 0.0
    loss: float = 0.0
    seed: int = 0

    @property
    def queue_bytes(self) -> int:
        """Room for all that is under way in a round trip, or for QUEUE_PACKETS."""
        return max(round(self.rate / 8 * 2 * self.delay), QUEUE_PACKETS * MTU)


GIGABIT = Shape(rate=1e9, delay=0.001)
FAR = Shape(rate=100e6, delay=0.040, loss=0.01)


@dataclass(frozen=True)
class End:
    """Where one side of a link is plugged in."""

    space: str
    device: str
    address: str


class Wire(Protocol):
    """What carries the packets."""

    def start(self) -> None: ...
    def close(self) -> None: ...
    def apply(self, shape: Shape, cut: Towards | None) -> None: ...


class Link:
    """A cable. ``shape`` and ``cut`` work at any time, on connections that are open too."""

    def __init__(self, host: End, box: End, wire: Wire) -> None:
        self.host, self.box, self.wire = host, box, wire
        self._shape, self._cut = Shape(), None

    def start(self) -> None:
        self.wire.start()
        for end in (self.host, self.box):
            command("ip", "-n", end.space, "addr", "add", f"{end.address}/24", "dev", end.device)
            command("ip", "-n", end.space, "link", "set", end.device, "mtu", MTU, "txqueuelen", QUEUE_PACKETS, "up")

    def close(self) -> None:
        self.wire.close()

    def shape(self, rate: float = 0.0, delay: float = 0.0, loss: float = 0.0, *, seed: int = 0) -> None:
        """Bits a second, seconds one way, share lost each way. netem throws its own dice, whatever the seed."""
        self.become(Shape(rate, delay, loss, seed))

    def become(self, shape: Shape) -> None:
        self.wire.apply(shape, self._cut)
        self._shape = shape

    def cut(self, towards: Towards = "both") -> None:
        """Pull the cable: packets vanish, what is under way too, and nobody is told. Or in one direction alone."""
        self.wire.apply(self._shape, towards)
        self._cut = towards

    def heal(self) -> None:
        self.wire.apply(self._shape, None)
        self._cut = None


class TunWire:
    """tbf and the shaper between two TUN devices."""

    about = "tbf and a shaper between TUN devices"

    def __init__(self, host: End, box: End) -> None:
        self._ends = host, box
        self._shape, self._cut = Shape(), None
        self.shaper = Shaper((host.space, host.device), (box.space, box.device))

    def start(self) -> None:
        self.shaper.start()

    def close(self) -> None:
        self.shaper.close()

    def apply(self, shape: Shape, cut: Towards | None) -> None:
        # Only what has changed: to give a seed anew would repeat the losses.
        if shape != self._shape:
            self.shaper.shape(shape.delay, shape.loss, shape.seed)
            for end in self._ends:
                _discipline(end, tbf(shape) if shape.rate else ["pfifo", "limit", str(QUEUE_PACKETS)])
        if cut != self._cut:
            self.shaper.cut(to_box=cut in {"both", "box"}, to_host=cut in {"both", "host"})
        self._shape, self._cut = shape, cut


class NetemWire:
    """netem at both ends of a veth pair; each shapes what its end sends."""

    about = "netem"

    def __init__(self, host: End, box: End) -> None:
        self._host, self._box = host, box

    def start(self) -> None:
        peer = ("peer", "name", self._box.device, "netns", self._box.space)
        command("ip", "-n", self._host.space, "link", "add", self._host.device, "type", "veth", *peer)

    def close(self) -> None:
        """Both go with their namespaces."""

    def apply(self, shape: Shape, cut: Towards | None) -> None:
        for end, towards in ((self._host, "box"), (self._box, "host")):
            # What TCP hands over in one piece is lost in one piece: losses want single packets.
            segments = 1 if shape.loss else 65535
            command("ip", "-n", end.space, "link", "set", end.device, "gso_max_segs", segments)
            # What waits in netem goes with it.
            _discipline(end, ["blackhole"] if cut in {"both", towards} else netem(shape))


def tbf(shape: Shape) -> list[str]:
    """Its burst is a millisecond's worth, so that what TCP sends in one piece (64 KiB) passes whole at 1 Gbit/s."""
    burst = max(round(shape.rate / 8 / 1000), 16384)
    return ["tbf", "rate", f"{round(shape.rate)}bit", "burst", f"{burst}b", "limit", f"{shape.queue_bytes}b"]


def netem(shape: Shape) -> list[str]:
    rate = ["rate", f"{round(shape.rate)}bit"] if shape.rate else []
    # Its queue holds what is delayed too.
    under_way = round(shape.rate / 8 * shape.delay) // MTU
    limit = max(shape.queue_bytes // MTU, QUEUE_PACKETS) + under_way
    delay, loss = f"{round(shape.delay * 1e6)}us", f"{100 * shape.loss:.4f}%"
    return ["netem", "limit", str(limit), "delay", delay, "loss", loss, *rate]


def _discipline(end: End, words: list[str]) -> None:
    """The queueing discipline of what this end sends."""
    command("tc", "-n", end.space, "qdisc", "replace", "dev", end.device, "root", *words)


@functools.cache
def way() -> type[NetemWire | TunWire]:
    """How links are shaped on this machine, tried once; LabError where there is no way."""
    with named_lab() as name:
        make(space := f"{name}-try")
        try:
            if _takes(space, netem(GIGABIT)):
                return NetemWire
            if _takes(space, tbf(GIGABIT)):
                return TunWire
        finally:
            remove(space)
    raise LabError("this kernel has neither netem nor tbf to shape a link with")


def _takes(name: str, words: list[str]) -> bool:
    try:
        _discipline(End(name, "lo", ""), words)
    except LabError:
        return False
    return True
