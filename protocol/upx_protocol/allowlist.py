"""The list of those who may connect to a worker that serves a network."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Dict, List, Optional, Tuple

log = logging.getLogger("upx.door")

KEY_BYTES = 32
#: More clients than anybody manages by hand; a larger file is a mistake.
MAX_ALLOWED = 10_000
MAX_ALLOWED_BYTES = 4 * 1024 * 1024


class Allowlist:
    """Who may connect, by the hexadecimal text of a public key: ``own``, and whoever stands in a file.

    A line of the file is ``NAME KEY``; empty lines and those that begin with "#" say nothing. The file is read again
    when it has changed. One that cannot be read allows nobody but ``own``: a lock that is broken stays shut.
    """

    def __init__(self, own: str, path: str = "") -> None:
        self.own = own
        self._path = path
        self._stamp: Optional[Tuple[int, int, int]] = None
        self._names: Dict[str, str] = {own: "own"}
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def name(self, key: str) -> str:
        """What people call the holder of a key; empty for a stranger."""
        return self._names.get(key, "")

    def refresh(self) -> List[str]:
        """Read the file if it has changed; the keys that were allowed and are no more."""
        stamp = self._look()
        if not self._path or stamp == self._stamp:
            return []
        before, self._stamp = self._names, stamp
        self._names = {**self._read(), self.own: "own"}
        return [key for key in before if key not in self._names]

    def _look(self) -> Optional[Tuple[int, int, int]]:
        try:
            found = os.stat(self._path) if self._path else None  # noqa: PTH116  twice a second, for ever
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size) if found is not None else None

    def _read(self) -> Dict[str, str]:
        try:
            with Path(self._path).open(encoding="utf-8") as file:
                lines = file.read(MAX_ALLOWED_BYTES).splitlines()[:MAX_ALLOWED]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.error("the list of allowed keys cannot be read, nobody else may connect: %s", error)  # noqa: TRY400
            return {}
        return dict(entry for entry in map(parse_allowed, lines) if entry is not None)


def parse_allowed(line: str) -> Optional[Tuple[str, str]]:
    """(key, name) of a line of the list; None for one that names no key."""
    words = line.split()
    if len(words) != 2 or words[0].startswith("#"):  # noqa: PLR2004  a name and a key
        return None
    name, key = words[0], words[1].lower()
    try:
        whole = len(bytes.fromhex(key)) == KEY_BYTES
    except ValueError:
        return None
    return (key, name) if whole else None
