"""What people call machines, and their keys as people write them; no list of boxes needs more imports than these."""

from __future__ import annotations

import re

from upx.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY = re.compile(r"[0-9a-fA-F]{64}")


def parse_key(text: str) -> str:
    """A public key as people give it: 64 hexadecimal digits; UsageError for anything else."""
    word = text.strip()
    if _KEY.fullmatch(word) is None:
        raise UsageError(f"{word[:80]!r} is no key", hint="64 hexadecimal digits, as upx key show prints them")
    return word.lower()
