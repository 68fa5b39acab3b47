"""ONNX files made by hand, message by message, right and wrong ones."""

from __future__ import annotations


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(name: str, dims: list[int], *, kind: int = 1, raw: bytes | None = b"", packed: bool = False) -> bytes:
    shape = part(1, b"".join(map(varint, dims))) if packed else b"".join(number(1, each) for each in dims)
    return shape + number(2, kind) + part(8, name) + (part(9, raw) if raw is not None else b"")


def external(name: str, **entries: str) -> bytes:
    listed = b"".join(part(13, part(1, key) + part(2, value)) for key, value in entries.items())
    return tensor(name, [4], raw=None) + listed + number(14, 1)


def model(graph: bytes, *, version: int = 8) -> bytes:
    opsets = part(8, number(2, 17)) + part(8, part(1, "com.x") + number(2, 3))
    return number(1, version) + part(2, "kit") + part(7, graph) + opsets
