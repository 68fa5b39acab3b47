"""The names that a pickle asks for, read from its opcodes; nothing is looked up, built or called.

For an answer that says which names were refused: torch's own reader stops at the first one, and at opcodes of
protocols that it does not know. It is no wall of its own; that reader is.
"""

from __future__ import annotations

import struct
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes of an argument of fixed size, by opcode (PEP 307, PEP 3154 and PEP 574).
_FIXED = {b"J": 4, b"K": 1, b"M": 2, b"G": 8, b"h": 1, b"j": 4, b"q": 1, b"r": 4, b"\x80": 1, b"\x95": 8,
          b"\x82": 1, b"\x83": 2, b"\x84": 4}  # fmt: skip
# The format of the length that an argument of variable size begins with.
_COUNTED = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q", b"T": "<i", b"U": "<B", b"B": "<I", b"C": "<B", b"\x8e": "<Q",
            b"\x96": "<Q", b"\x8a": "<B", b"\x8b": "<i"}  # fmt: skip
_LINES = {b"F": 1, b"I": 1, b"L": 1, b"S": 1, b"V": 1, b"P": 1, b"g": 1, b"p": 1, b"c": 2, b"i": 2}
_BARE = frozenset(b"(.012abdelostuNQR])}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98")
_TEXTS = {b"X", b"\x8c", b"\x8d", b"V", b"S", b"T", b"U"}
# Longer texts are no names; they are skipped.
_NAME_BYTES = 1_000


class _Texts:
    """The texts pushed last, and those that the memo keeps: what STACK_GLOBAL takes its two names from."""

    def __init__(self) -> None:
        self.last: list[str] = []
        self.memo: dict[int, str] = {}
        self.kept = 0

    def push(self, text: str) -> None:
        self.last = [*self.last[-1:], text]

    def keep(self, slot: int | None = None) -> None:
        self.memo[self.kept if slot is None else slot] = self.last[-1] if self.last else ""
        self.kept += 1


def names_in(stream: IO[bytes], *, pickles: int = 1) -> set[str]:
    """Dotted names that the first ``pickles`` pickles of ``stream`` ask for; those before a break, if it breaks."""
    found: set[str] = set()
    for _ in range(pickles):
        try:
            found.update(_names(stream))
        except (ValueError, EOFError, struct.error, OverflowError):
            break
    return found


def _names(stream: IO[bytes]) -> Iterator[str]:
    texts = _Texts()
    while (opcode := stream.read(1)) != b".":
        argument = _argument(stream, opcode)
        if opcode in {b"c", b"i"}:
            yield ".".join(argument.decode("utf-8", "replace").splitlines())
        elif opcode == b"\x93":
            yield ".".join(texts.last)
        elif opcode in {b"\x82", b"\x83", b"\x84"}:
            yield f"extension {int.from_bytes(argument, 'little')}"
        else:
            _remember(texts, opcode, argument)


def _remember(texts: _Texts, opcode: bytes, argument: bytes) -> None:
    if opcode in _TEXTS:
        texts.push(argument.decode("utf-8", "replace").strip("'\""))
    elif opcode in {b"h", b"j"}:
        texts.push(texts.memo.get(int.from_bytes(argument, "little"), ""))
    elif opcode == b"g":
        texts.push(texts.memo.get(int(argument), ""))
    elif opcode in {b"q", b"r"}:
        texts.keep(int.from_bytes(argument, "little"))
    elif opcode == b"p":
        texts.keep(int(argument))
    elif opcode == b"\x94":
        texts.keep()


def _argument(stream: IO[bytes], opcode: bytes) -> bytes:
    """What belongs to the opcode; ValueError for one that does not exist."""
    if opcode in _FIXED:
        return _exactly(stream, _FIXED[opcode])
    if opcode in _COUNTED:
        form = _COUNTED[opcode]
        return _exactly(stream, struct.unpack(form, _exactly(stream, struct.calcsize(form)))[0])
    if opcode in _LINES:
        return b"\n".join(stream.readline(_NAME_BYTES).rstrip(b"\n") for _ in range(_LINES[opcode]))
    if opcode and opcode[0] in _BARE:
        return b""
    raise ValueError(f"no opcode {opcode!r}")


def _exactly(stream: IO[bytes], count: int) -> bytes:
    if count < 0:
        raise ValueError("a negative length")
    data = stream.read(min(count, _NAME_BYTES))
    # A long text is no name; what is left of it is passed over, in pieces.
    left = count - len(data)
    while left > 0 and (piece := stream.read(min(left, 1 << 20))):
        left -= len(piece)
    if left:
        raise EOFError
    return data
