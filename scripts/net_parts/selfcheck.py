"""Whether links do what they are told: scripts/net_parts/selfcheck.py, as root. Exit 1 when a figure is out of bounds.

Round trip, rate and loss of the two links that benches and soaks use, a cable pulled and plugged in again, and that
nothing is left at the end.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab import Lab
from link import FAR, GIGABIT
from namespaces import SPACES
from probe import CONTROL, PACKET, arrived, probed, received, round_trips, sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Box
    from link import Shape

# What a packet of 1,500 bytes carries of TCP's.
CARRIED = 1448 / PACKET
CUT_S = 1.0


@dataclass(frozen=True)
class Figure:
    """What was measured and between which bounds it should be."""

    name: str
    value: float
    unit: str
    least: float
    most: float

    @property
    def right(self) -> bool:
        return self.least <= self.value <= self.most

    def line(self) -> str:
        verdict = "ok" if self.right else "WRONG"
        return f"  {self.name:<44} {self.value:9.3f} {self.unit:<7} {self.least:.4g} to {self.most:.4g}  {verdict}"


def figures(box: Box, shape: Shape, name: str, size: int) -> Iterator[Figure]:
    """A link of that shape as bare sockets find it."""
    box.link.become(shape)
    with probed(box) as address:
        trip = 1000 * 2 * shape.delay
        yield Figure(f"{name}: round trip", 1000 * statistics.median(round_trips(address, 20)), "ms", trip, trip + 4)
        line = shape.rate * CARRIED / 1e6
        # How much of a link that loses packets TCP can use is up to its control of congestion.
        least = 0.0 if shape.loss else 0.9 * line
        for what, way in (("to the box", sent), ("from the box", received)):
            yield Figure(f"{name}: TCP {what}", way(address, size) / 1e6, "Mbit/s", least, 1.02 * line)
        yield from _datagrams(address, shape, name)


def _datagrams(address: str, shape: Shape, name: str) -> Iterator[Figure]:
    """As fast as they go on a slow link; Python fills no fast one."""
    count, offered = 10_000, min(2 * shape.rate, 200e6)
    heard, rate = arrived(address, count, offered)
    if offered > shape.rate:
        most = shape.rate * (1 - shape.loss) / 1e6
        yield Figure(f"{name}: datagrams", rate / 1e6, "Mbit/s", 0.9 * most, 1.03 * most)
    # Four standard deviations.
    spread = 4 * (shape.loss * (1 - shape.loss) / count) ** 0.5
    bounds = 100 * (shape.loss - spread), 100 * (shape.loss + spread)
    yield Figure(f"{name}: datagrams lost", 100 * (1 - heard / count), "%", *bounds)


def cut_and_healed(box: Box) -> Iterator[Figure]:
    """A connection stands still while the cable is out, hears no refusal, and goes on afterwards."""
    box.link.become(GIGABIT)
    with probed(box) as address, socket.create_connection((address, CONTROL), timeout=CUT_S) as open_one:
        box.link.cut()
        yield Figure("cut: round trips that came back", len(round_trips(address, 2)), "of 2", 0, 0)
        open_one.sendall(b"heard\n")
        try:
            silent = float(open_one.recv(64) == b"never")
        except TimeoutError:
            silent = 1.0
        yield Figure("cut: an open connection hears nothing", silent, "yes = 1", 1, 1)
        box.link.heal()
        begin = time.monotonic()
        open_one.settimeout(10 * CUT_S)
        answered = bool(open_one.recv(64))
        yield Figure("healed: the connection answered", float(answered), "yes = 1", 1, 1)
        yield Figure("healed: seconds until it did", time.monotonic() - begin, "s", 0, 10)


def main() -> int:
    found = []
    with Lab(boxes=2) as lab, lab.enter_host():
        print(lab.about)
        near, far = lab.boxes
        for figure in (
            *figures(near, GIGABIT, "1 Gbit/s, 1 ms each way", 50 << 20),
            *figures(far, FAR, "100 Mbit/s, 40 ms, 1 %", 25 << 20),
            *cut_and_healed(near),
        ):
            print(figure.line(), flush=True)
            found.append(figure)
    left = len(list(SPACES.glob(f"{lab.name}-*")))
    found.append(Figure("namespaces left", left, "", 0, 0))
    print(found[-1].line())
    print("load average {:.2f} {:.2f} {:.2f} on {} cores".format(*os.getloadavg(), os.cpu_count()))
    wrong = sum(not figure.right for figure in found)
    print(f"{len(found) - wrong} right, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
