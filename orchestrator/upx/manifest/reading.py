"""Read a TOML file of a stranger's: a regular one, of a sane size, without keys that unfold into gigabytes."""

from __future__ import annotations

import stat
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 1 << 20
# Each dot of a key is a table in a table, and the parser keeps notes about every prefix.
MOST_DOTS = 32


class NoTomlError(ValueError):
    """What is wrong with the file, in words that follow its name."""


def read_bytes(path: Path) -> bytes:
    """The content; NoTomlError for what is no file of that kind, OSError where it cannot be read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise NoTomlError("is no regular file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise NoTomlError("is larger than any manifest")
    return content


def parse_toml(content: bytes) -> dict[str, Any]:
    """The table; NoTomlError says what is wrong."""
    try:
        text = content.decode("utf-8-sig")
        _refuse_deep_keys(text)
        return tomllib.loads(text)
    except NoTomlError:
        raise
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8 and numbers without end are ValueErrors
        raise NoTomlError(str(error)[:200]) from error


def _refuse_deep_keys(text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        key = line.partition("]" if line.lstrip().startswith("[") else "=")[0]
        if key.count(".") > MOST_DOTS:
            raise NoTomlError(f"line {number}: a key of more than {MOST_DOTS} parts")
