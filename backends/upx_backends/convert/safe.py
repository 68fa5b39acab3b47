"""The tensors of a safetensors file, mapped: for one of which only a part is wanted, or under other names.

The host has read the header before, and refused what was not as it should be.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import torch

from upx_backends.convert.writing import DTYPES, HEADER_BYTES, METADATA
from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = 8
_TYPES = {name: dtype for dtype, name in DTYPES.items()}


def open_safe(path: Path) -> dict[str, torch.Tensor]:
    """Name to tensor; nothing is read before it is used. Any exception for a file that is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_PREFIX), "little")
        if length > min(HEADER_BYTES, size):
            raise BadInputError(f"it has a header of {length} bytes")
        table = json.loads(file.read(length))
    table.pop(METADATA, None)
    mapped = torch.from_file(os.fspath(path), shared=False, size=size, dtype=torch.uint8)
    return {name: _tensor(mapped[_PREFIX + length :], **entry) for name, entry in table.items()}


def _tensor(data: torch.Tensor, *, dtype: str, shape: list[int], data_offsets: list[int]) -> torch.Tensor:
    begin, end = data_offsets
    if dtype not in _TYPES or not 0 <= begin <= end <= data.numel():
        raise BadInputError(f"a tensor of {dtype[:20]} from {begin} to {end} is not there")
    part, kind = data[begin:end], _TYPES[dtype]
    # Where the file does not keep elements at multiples of their size, they are copied to where it does.
    if part.data_ptr() % kind.itemsize or part.storage_offset() % kind.itemsize:
        part = part.clone()
    return part.view(kind).reshape(shape)
