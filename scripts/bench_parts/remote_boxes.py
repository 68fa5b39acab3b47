"""Machines of their own in the network lab: a client, and boxes that serve a backend to it over tcp with CURVE."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import ROOT, UPX, environment, run

sys.path.insert(0, str(ROOT / "scripts" / "net_parts"))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Box, Lab

PORTS = {"nearest": 7600, "span": 7601}
START_S = 60.0


class Machine:
    """A home with the bench's environments in it, and its keys."""

    def __init__(self, home: Path) -> None:
        self.home, self.env = home, environment(home)
        built = Path(environment()["UPX_HOME"]) / "data" / "venvs"
        (home / "data").mkdir(parents=True)
        (home / "data" / "venvs").symlink_to(built, target_is_directory=True)

    def upx(self, *words: str) -> str:
        return run([UPX, *words], env=self.env)[1]

    def key(self, which: str) -> str:
        """The public key of that kind."""
        records = [json.loads(line) for line in self.upx("key", "show", "--json").splitlines()]
        return next(each["key"] for each in records if each.get("which") == which)


def machines(lab: Lab, folder: Path) -> tuple[Machine, list[Machine]]:
    """A client, and one for each box, all of which let the client in."""
    client, boxes = Machine(folder / "client"), []
    for number in range(1, len(lab.boxes) + 1):
        boxes.append(Machine(folder / f"box{number}"))
        boxes[-1].upx("key", "allow", "client", client.key("client"))
    return client, boxes


@contextlib.contextmanager
def served(lab: Lab, backend: str, client: Machine, boxes: list[Machine]) -> Iterator[list[str]]:
    """Every box serves the backend while the block runs; the names by which the client knows them."""
    with contextlib.ExitStack() as stack:
        names = []
        for place, machine in zip(lab.boxes, boxes, strict=True):
            address = f"tcp://{place.address}:{PORTS[backend]}"
            names.append(f"{backend}-{place.space[-1]}")
            stack.enter_context(_serving(place, machine, backend, address, names[-1]))
            with lab.enter_host():
                client.upx("worker", "add", names[-1], address, "--key", machine.key("server"))
        yield names


@contextlib.contextmanager
def _serving(place: Box, machine: Machine, backend: str, address: str, name: str) -> Iterator[None]:
    said = machine.home / f"{backend}.log"
    command = [UPX, "worker", "serve", backend, "--listen", address, "--name", name]
    with said.open("wb") as file, place.popen(command, env=machine.env, stdout=file, stderr=file) as process:
        try:
            until = time.monotonic() + START_S
            while f"serves {backend}" not in said.read_text():
                if process.poll() is not None or time.monotonic() > until:
                    message = f"the box does not serve: {said.read_text()}"
                    raise RuntimeError(message)
                time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
