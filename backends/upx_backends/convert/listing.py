"""What a checkpoint holds, as JSON: tensors by group, with dtype and shape, and the values beside them as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upx_backends.convert.writing import dtype_name

if TYPE_CHECKING:
    import torch

    from upx_backends.convert.groups import Groups

# A trainer's log may be long; for people a line of each is enough.
TEXT = 200
OTHERS = 1_000
_PLAIN = (str, bytes, bool, int, float, type(None))


def inventory(groups: Groups) -> dict[str, Any]:
    """``{"groups": {path: {name: {"dtype": ..., "shape": [...]}}}, "other": {path: text}}``; no data is read."""
    listed = {path: {name: _entry(tensor) for name, tensor in own.items()} for path, own in groups.tensors.items()}
    other = {path: _text(value) for path, value in list(groups.other.items())[:OTHERS]}
    return {"groups": listed, "other": other}


def _entry(tensor: torch.Tensor) -> dict[str, Any]:
    return {"dtype": dtype_name(tensor), "shape": list(tensor.shape)}


def _text(value: object) -> str:
    """A plain value's text; of anything else its type alone, since its text could be anything."""
    text = str(value) if isinstance(value, _PLAIN) else type(value).__name__
    # Half a character of a broken text is no JSON.
    return text[:TEXT].encode("utf-8", "replace").decode()
