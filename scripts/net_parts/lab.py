"""Boxes as network namespaces with addresses of their own, each at the end of a link that can be shaped and cut.

    with Lab(boxes=3) as lab:
        lab.boxes[0].link.become(FAR)
        lab.boxes[0].popen([...])          # in the box
        lab.host_popen([...])              # at the host's end of all links
        with lab.enter_host():             # this thread and what it starts, there too
            ...

Nothing is routed: a packet leaves a box towards the host alone, and never this machine. At the end every process
inside is killed, whoever started it, and nothing is left. For Linux, as root.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import namespaces
from link import End, Link, way

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

CAPTURE = Path(__file__).with_name("capture.py")


class Place:
    """One namespace: the host's, or a box's."""

    def __init__(self, space: str) -> None:
        self.space = space

    def popen(self, words: Sequence[object], **options: Any) -> subprocess.Popen:
        """A process inside; its pid is the program's own."""
        inside = ["nsenter", f"--net={namespaces.SPACES / self.space}", "--"]
        return subprocess.Popen([*inside, *map(str, words)], **options)

    def enter(self) -> AbstractContextManager[None]:
        """This thread inside, with the threads and processes that it starts meanwhile."""
        return namespaces.inside(self.space)

    def pids(self) -> list[int]:
        """The processes inside, less this one."""
        return namespaces.inhabitants(self.space)


class Box(Place):
    """A far machine: its ``address``, the host's as it sees it, and the link between."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name}-{number}")
        self.address, self.host_address = f"10.87.{number}.2", f"10.87.{number}.1"
        ends = End(f"{name}-host", f"box{number}", self.host_address), End(self.space, "host", self.address)
        self.link = Link(*ends, way()(*ends))


class Lab:
    """``boxes`` and a host, with a link to each. ``congestion`` is TCP's control of it in all of them."""

    def __init__(self, boxes: int = 3, *, congestion: str | None = None) -> None:
        self._count, self._congestion = boxes, congestion
        self._stack = contextlib.ExitStack()
        self.name, self.boxes = "", []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.name = stack.enter_context(namespaces.named_lab())
            self.host = Place(self._make(stack, f"{self.name}-host"))
            self.boxes = [self._box(stack, number) for number in range(1, self._count + 1)]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _box(self, stack: contextlib.ExitStack, number: int) -> Box:
        box = Box(self.name, number)
        self._make(stack, box.space)
        stack.callback(box.link.close)
        box.link.start()
        return box

    def _make(self, stack: contextlib.ExitStack, space: str) -> str:
        namespaces.make(space)
        stack.callback(namespaces.remove, space)
        if self._congestion:
            namespaces.set_sysctl(space, "ipv4/tcp_congestion_control", self._congestion)
        return space

    def host_popen(self, words: Sequence[object], **options: Any) -> subprocess.Popen:
        """A process at the host's end of all links."""
        return self.host.popen(words, **options)

    def enter_host(self) -> AbstractContextManager[None]:
        """This thread at the host's end, with the threads and processes that it starts meanwhile."""
        return self.host.enter()

    @property
    def about(self) -> str:
        """How links are shaped here, for a note beside figures."""
        control = namespaces.sysctl(self.host.space, "ipv4/tcp_congestion_control")
        return f"links: {way().about}; TCP: {control}"

    @contextlib.contextmanager
    def capture(self, path: Path) -> Iterator[Capture]:
        """All that passes the host's end of the links, as a pcap file that is whole when the block ends."""
        words = [sys.executable, "-I", CAPTURE, path]
        with self.host_popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                if process.stdout.readline() != "ready\n":
                    raise namespaces.LabError("the capture did not start")
                capture = Capture()
                yield capture
                said, _ = process.communicate(timeout=60)
                capture.packets, capture.dropped = map(int, said.split())
            finally:
                process.kill()


class Capture:
    """What a capture took, once it has ended; dropped are packets that the kernel had no room for."""

    packets = dropped = -1
