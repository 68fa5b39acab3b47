"""Protobuf's wire format over mapped bytes: fields by number, nothing decoded before it is asked for.

Three of the four wire types; groups were given up long ago and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_VARINT_BYTES = 10
# Of a name or a path; what is longer is neither.
_TEXT = 4_096


class WrongMessageError(ValueError):
    """Bytes that are no message, or not the one expected."""


@dataclass(frozen=True, slots=True)
class Message:
    """The bytes from ``start`` to ``end``; whoever asks for a field walks all of them, and so finds where they end."""

    data: mmap.mmap | bytes
    start: int
    end: int

    def messages(self, number: int) -> Iterator[Message]:
        """The embedded messages, or bytes, of that field."""
        for field, kind, begin, end in self._fields():
            if field == number:
                if kind != _BYTES:
                    raise WrongMessageError(f"field {number} is no message")
                yield Message(self.data, begin, end)

    def number(self, number: int) -> int:
        """The last value of a field of numbers; 0 where there is none."""
        return ([0, *self.numbers(number)])[-1]

    def numbers(self, number: int) -> Iterator[int]:
        """The values of a field of numbers, signed, packed or not."""
        for field, kind, begin, end in self._fields():
            if field != number:
                continue
            if kind not in {_VARINT, _BYTES}:
                raise WrongMessageError(f"field {number} is no number")
            at = begin
            while at < end:
                value, at = self._varint(at, end)
                yield value - (1 << 64) if value >= 1 << 63 else value

    def text(self, number: int) -> str:
        """The last text of that field; empty where there is none."""
        found = ""
        for part in self.messages(number):
            if part.end - part.start > _TEXT:
                raise WrongMessageError(f"a text of {part.end - part.start} bytes stands where a name belongs")
            found = self.data[part.start : part.end].decode("utf-8", "replace")
        return found

    def length(self, number: int) -> int | None:
        """The bytes that the field takes; None where there is none."""
        return ([None, *(part.end - part.start for part in self.messages(number))])[-1]

    def _fields(self) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type, begin and end of each field's value."""
        at = self.start
        while at < self.end:
            tag, at = self._varint(at, self.end)
            begin = at
            if tag & 7 == _VARINT:
                _, at = self._varint(at, self.end)
            elif tag & 7 == _BYTES:
                length, begin = self._varint(at, self.end)
                at = begin + length
            elif tag & 7 in {_EIGHT, _FOUR}:
                at += 8 if tag & 7 == _EIGHT else 4
            else:
                raise WrongMessageError(f"a field of the unknown kind {tag & 7}")
            if at > self.end:
                raise WrongMessageError("it was cut, or a length in it is longer than the file")
            yield tag >> 3, tag & 7, begin, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(min(_VARINT_BYTES, end - at)):
            byte = self.data[at + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004  the bit that says that more follows
                return value & (1 << 64) - 1, at + index + 1
        raise WrongMessageError("it was cut in a number, or a number has no end")
