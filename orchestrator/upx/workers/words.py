"""What another machine says of itself, made fit to be shown and to be acted on: it may say anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 64
# More workers than any box has devices.
MOST_PORTS, MOST_PORT = 64, 65_535


def tame(text: str) -> str:
    """On one line, short, and without a character that a terminal would obey or that turns others around."""
    seen = "".join(each if each.isprintable() else " " for each in text[: 4 * LONGEST])
    line = " ".join(seen.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def told_ports(ports: Iterable[int]) -> tuple[int, ...]:
    """The ports of a box's workers, as far as they can be some, each once."""
    return tuple(dict.fromkeys(port for port in ports if 0 < port <= MOST_PORT))[:MOST_PORTS]
