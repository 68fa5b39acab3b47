"""Lists or copies the tensors of a file that torch saved; ``load`` does it, since a load has no picture.

The role "source" is that file. The load parameter ``order`` names a JSON file, ``result`` the file to write:
``{"do": "inventory"}`` writes JSON, ``{"do": "extract", "group": G, "strip": S, "leave": [PATTERN]}`` a safetensors
file. Every failure is a ``BadInputError`` of one line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upx_backends.convert.groups import find_groups
from upx_backends.convert.listing import inventory
from upx_backends.convert.opening import open_checkpoint
from upx_backends.convert.selection import select
from upx_backends.convert.writing import write_beside, write_tensors
from upx_protocol.errors import BadInputError
from upx_protocol.upscaler import Batch, DeviceInfo, LoadRequest, LoadResult, Upscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = "convert-torch"
DOES = ("inventory", "extract")
# An order is a group's name and a few patterns, or the names of a thousand tensors.
ORDER_BYTES = 16_000_000


@dataclass(frozen=True)
class Order:
    """What to do with the source; see the module."""

    do: str
    group: str = ""
    strip: str = ""
    leave: tuple[str, ...] = ()


class Backend(Upscaler):
    """Keeps nothing: each load is one order."""

    def device(self, wanted: str) -> DeviceInfo:  # noqa: ARG002  there is no other
        """Always the CPU."""
        return DeviceInfo(device="cpu", device_name="torch on the CPU")

    def load(self, request: LoadRequest) -> LoadResult:
        """Carry out the order."""
        if request.model != MODEL:
            raise BadInputError(f"no model {request.model!r} here: {MODEL}")
        source, result = Path(request.files.get("source") or ""), Path(str(request.params.get("result") or ""))
        if not source.is_file() or not result.name:
            raise BadInputError(f"no file for 'source', or no 'result' to write: {source}, {result}")
        order = read_order(Path(str(request.params.get("order") or "")))
        request.progress("reading", 0, 1)
        groups = find_groups(open_checkpoint(source))
        request.progress("reading", 1, 1)
        if order.do == "inventory":
            write_beside(result, [json.dumps(inventory(groups)).encode()])
        else:
            chosen = select(groups, order.group, strip=order.strip, leave=order.leave)
            write_tensors(result, chosen, limit=source.stat().st_size, progress=request.progress)
        return LoadResult(scale=1)

    def upscale(self, batch: Batch) -> list[NDArray[Any]]:
        """Refuse: there is no network here."""
        raise BadInputError(f"convert opens files and enlarges nothing ({len(batch.tiles)} tiles)")


def read_order(path: Path) -> Order:
    """The order in that file; BadInputError for anything else."""
    try:
        with path.open("rb") as file:
            order = Order(**json.loads(file.read(ORDER_BYTES)))
        texts = (order.do, order.group, order.strip, *order.leave)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadInputError(f"the order cannot be read: {path.name or 'no file'}: {error}") from error
    if order.do not in DOES or not all(isinstance(text, str) for text in texts):
        raise BadInputError(f"the order is none of {', '.join(DOES)}, or holds what is no text")
    return order
