"""The boxes that this machine knows: name, address and pinned key, one file ``<data>/keys/boxes.json``, 0600."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from upx.errors import UsageError
from upx.private_files import changing, read_private, write_private
from upx.remote.names import NAME, parse_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upx.config import Settings

SCHEMA = 1
RESERVED = frozenset({"any", "local", "all"})
_ADDRESS = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Box:
    """A machine that serves one backend. ``key``: its public key in hexadecimal, pinned when it was added.

    ``backend``: empty until it was reached once.
    """

    name: str
    endpoint: str
    key: str
    backend: str = ""

    def at(self, port: int) -> str:
        """The address of another of its workers."""
        return f"{self.endpoint.rpartition(':')[0]}:{port}"

    @property
    def port(self) -> int:
        """The port of its first worker."""
        return int(self.endpoint.rpartition(":")[2])


class Book:
    """What is known of boxes. A box's key never changes: it is removed, and added anew."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.data_dir / "keys"
        self._path = settings.data_dir / "keys" / "boxes.json"

    def all(self) -> list[Box]:
        """Every box, by name; UsageError where the file is none of ours, or what it says of a box is wrong."""
        try:
            fields: Any = json.loads(read_private(self._path))
            boxes = [Box(**each) for each in cast("list[dict[str, str]]", fields["boxes"])]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self._path} cannot be read: {error}", hint="remove it, and add the boxes again: upx worker add"
            ) from error
        return sorted(map(self._checked, boxes), key=lambda box: box.name)

    def _checked(self, box: Box) -> Box:
        """A box as it was written down, perhaps by hand."""
        try:
            return replace(parse_box(box.name, box.endpoint, box.key), backend=box.backend)
        except (UsageError, AttributeError, TypeError) as error:
            raise UsageError(
                f"{self._path} is wrong about {box.name}: {error}",
                hint="correct it there, or remove the file and add the boxes again: upx worker add",
            ) from error

    def get(self, name: str) -> Box:
        """The box of that name; UsageError names those that there are."""
        found = {box.name: box for box in self.all()}
        if name not in found:
            known = ", ".join(found) or "none"
            raise UsageError(
                f"no box is called {name!r}", hint=f"upx worker add {name} tcp://HOST:PORT --key K; {known}"
            )
        return found[name]

    def add(self, box: Box) -> Box:
        """Keep a box, its key pinned. UsageError where the name has another key: that is another machine, or worse."""
        with changing(self._folder):
            known = self.check(box)
            boxes = {each.name: each for each in self.all()}
            boxes[box.name] = box if box.backend or known is None else replace(box, backend=known.backend)
            self._write(boxes.values())
            return boxes[box.name]

    def check(self, box: Box) -> Box | None:
        """What is known under its name; UsageError where that has another key."""
        known = next((each for each in self.all() if each.name == box.name), None)
        if known is not None and known.key != box.key:
            raise UsageError(
                f"{box.name} is pinned to another key: {known.key}",
                hint=f"if the machine was set up anew: upx worker rm {box.name}, then add it with its new key",
            )
        return known

    def remove(self, name: str) -> Box:
        """Forget a box; UsageError where it is not known."""
        with changing(self._folder):
            gone = self.get(name)
            self._write(box for box in self.all() if box.name != name)
        return gone

    def _write(self, boxes: Iterable[Box]) -> None:
        told = {"schema": SCHEMA, "boxes": [asdict(box) for box in boxes]}
        write_private(self._path, json.dumps(told, indent=1))


def named_boxes(names: Sequence[str], settings: Settings) -> list[Box]:
    """The boxes that words mean: "any" is all of them, "local" is none; UsageError for one that is not known."""
    book = Book(settings)
    named = [book.get(name) for name in dict.fromkeys(names) if name not in {"any", "local"}]
    return book.all() if "any" in names else named


def parse_box(name: str, address: str, key: str) -> Box:
    """A box as people name it; UsageError says which word is wrong."""
    if NAME.fullmatch(name) is None or name in RESERVED:
        raise UsageError(f"{name!r} cannot be the name of a box", hint="letters, digits, dots and dashes: attic")
    return Box(name, parse_address(address), parse_key(key))


def parse_address(text: str) -> str:
    """``tcp://HOST:PORT``, PORT from 1; UsageError for anything else."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= MOST_PORT:
        raise UsageError(f"{text!r} is no address", hint="tcp://HOST:PORT, as in tcp://192.168.1.20:7600")
    return text


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can connect to an address that is listened on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
