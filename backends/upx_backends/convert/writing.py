"""Write a safetensors file tensor by tensor, beside and renamed, so that memory stays that of one tensor.

The format: a little-endian length of eight bytes, that many bytes of JSON, then the data without a gap. Data is laid
widest elements first, so that each tensor starts at a multiple of its element; the header is sorted by name.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.uint16: "U16", torch.int16: "I16",
    torch.uint32: "U32", torch.int32: "I32", torch.uint64: "U64", torch.int64: "I64", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
# Readers refuse longer headers.
HEADER_BYTES = 100_000_000
ALIGNMENT = 8
METADATA = "__metadata__"
# A tensor may lie under several names, and a few values may be spread wide; a hundredfold is a trap.
SWELLING = 8


def dtype_name(tensor: torch.Tensor) -> str:
    """The format's word for the tensor's elements; torch's own, such as ``complex64``, where it has none."""
    name = DTYPES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
    if tensor.layout is not torch.strided:
        return f"{str(tensor.layout).removeprefix('torch.')} {name}"
    return name


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], *, limit: int, progress: Callable[[str, float, float], None]
) -> None:
    """Write ``tensors`` to ``path``.

    BadInputError for one that the format has no word for, and where all would take many times ``limit``, the size of
    the file that they come from.
    """
    if METADATA in tensors:
        raise BadInputError(f"a tensor is called {METADATA}, which is safetensors' own name")
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise BadInputError(f"{name} is {dtype_name(tensor)} on {tensor.device}, which safetensors cannot hold")
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    total = sum(map(_size, tensors.values()))
    if total > SWELLING * max(limit, 1_000_000):
        raise BadInputError(f"its tensors would take {total} bytes, many times the file's own {limit}")

    def pieces() -> Iterator[bytes | memoryview]:
        yield _header(tensors, order)
        done = 0
        for name in order:
            progress("writing", done, total)
            yield _data(tensors[name])
            done += _size(tensors[name])
        progress("writing", total, total)

    write_beside(path, pieces())


def write_beside(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write to a name beside and rename: ``path`` is whole or as it was. BadInputError where that cannot be."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except OSError as error:
        raise BadInputError(f"{path.name} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _header(tensors: Mapping[str, torch.Tensor], order: Iterable[str]) -> bytes:
    starts: dict[str, int] = {}
    end = 0
    for name in order:
        starts[name], end = end, end + _size(tensors[name])
    entries = {
        name: {
            "dtype": DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, start + _size(tensors[name])],
        }
        for name, start in sorted(starts.items())
    }
    text = json.dumps({METADATA: {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    if len(text) > HEADER_BYTES:
        raise BadInputError(f"{len(entries)} names of tensors do not fit into a safetensors header")
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _data(tensor: torch.Tensor) -> bytes | memoryview:
    """The tensor's bytes in row-major order; a view where they lie so already."""
    if tensor.numel() == 0:
        return b""
    flat = tensor.detach().resolve_neg().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())
