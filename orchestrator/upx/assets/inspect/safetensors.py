"""The header of a safetensors file: what is in it, and that the file is exactly that.

The format: a little-endian length of eight bytes, that many bytes of JSON, then the tensors' data without a gap.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn, cast

from upx.assets.inspect.inventory import Group, Inventory, Tensor, is_shape
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from pathlib import Path

# The format's own limit.
HEADER_BYTES = 100_000_000
PREFIX = 8
METADATA = "__metadata__"
# Bits of one element.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class _WrongError(ValueError):
    """What is wrong, in words that follow the file's name."""


def read_header(path: Path) -> Inventory:
    """The tensors in one group, the top; UnusableWeightsError for a file that is not exactly as its header says."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = _header_length(file.read(PREFIX), size)
            table = _parse(file.read(length))
        metadata = _metadata(table.pop(METADATA, {}))
        spans = [_span(name, entry) for name, entry in table.items()]
        _check_spans(spans, size - PREFIX - length)
    except OSError as error:
        raise UnusableWeightsError(f"{path.name} cannot be read: {error.strerror}", hint="check the file") from error
    except _WrongError as error:
        hint = "get it again from where it came: it was cut, altered, or is another kind of file"
        raise UnusableWeightsError(f"{path.name} is no whole safetensors file: {error}", hint=hint) from error
    return Inventory("safetensors", (Group("", {tensor.name: tensor for tensor, _, _ in spans}),), metadata)


def _header_length(prefix: bytes, size: int) -> int:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < PREFIX:
        raise _WrongError("it is shorter than the length it begins with")
    if length > HEADER_BYTES:
        raise _WrongError(f"its header would be {length} bytes long")
    if PREFIX + length > size:
        raise _WrongError(f"its header of {length} bytes is longer than the file")
    return length


def _parse(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise _WrongError("its header is no JSON object")
    try:
        return cast("dict[str, Any]", json.loads(header, object_pairs_hook=_once, parse_constant=_refuse))
    except _WrongError:
        raise
    except (ValueError, RecursionError) as error:
        raise _WrongError("its header is no JSON object") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two entries of one name: readers would differ in which of them they take."""
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _WrongError(f"its header names {_short(twice)} twice")
    return table


def _refuse(constant: str) -> NoReturn:
    raise _WrongError(f"its header holds {constant}")


def _metadata(value: object) -> dict[str, str]:
    table = cast("dict[str, object]", value) if isinstance(value, dict) else {"": None}
    if not all(isinstance(text, str) for text in table.values()):
        raise _WrongError("its metadata is no mapping of texts")
    return cast("dict[str, str]", table)


def _span(name: str, entry: Any) -> tuple[Tensor, int, int]:
    """A tensor with where its data begins and ends."""
    if not isinstance(entry, dict) or cast("dict[str, Any]", entry).keys() != {"dtype", "shape", "data_offsets"}:
        raise _WrongError(f"{_short(name)} does not say dtype, shape and data_offsets")
    table = cast("dict[str, Any]", entry)
    dtype, shape, offsets = table["dtype"], table["shape"], table["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _WrongError(f"{_short(name)} has the dtype {_short(str(dtype))}, which is not known")
    if not is_shape(shape) or not is_shape(offsets) or len(offsets) != len(("begin", "end")):
        raise _WrongError(f"{_short(name)} has no shape, or offsets that are none")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * BITS[dtype]:
        raise _WrongError(f"{_short(name)} takes {end - begin} bytes, which {shape} of {dtype} does not")
    return Tensor(name, dtype, tuple(shape)), begin, end


def _check_spans(spans: list[tuple[Tensor, int, int]], size: int) -> None:
    """One after the other from the first byte to the last: nothing twice, nothing hidden between, nothing missing."""
    reached = 0
    for tensor, begin, end in sorted(spans, key=lambda span: span[1:]):
        if begin != reached:
            what = "overlaps another tensor" if begin < reached else "lies behind a gap"
            raise _WrongError(f"{_short(tensor.name)} {what}")
        reached = end
    if reached != size:
        what = "was cut" if reached > size else "goes on behind its last tensor"
        raise _WrongError(f"it {what}: its tensors take {reached} bytes, and {size} are there")


def _short(name: str) -> str:
    return repr(name if len(name) <= (most := 100) else f"{name[:most]}...")
