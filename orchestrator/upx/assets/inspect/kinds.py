"""Which format a file has: told by its first bytes, and by its suffix only where those leave a doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.assets.inspect.safetensors import PREFIX
from upx.assets.inspect.torchfile import PICKLE, PROTOCOLS, ZIP
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from pathlib import Path

Kind: TypeAlias = Literal["safetensors", "torch-zip", "torch-pickle", "onnx", "ncnn-param", "json", "other"]
_HEAD = 64
# The first line of every ncnn network.
_NCNN = b"7767517"
# A ModelProto begins with its ir_version; behind it come producer, graph or opset_import.
_ONNX, _ONNX_NEXT = b"\x08", {0x12, 0x1A, 0x3A, 0x42}


def kind_of(path: Path) -> Kind:
    """The format; UnusableWeightsError for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            head, size = file.read(_HEAD), path.stat().st_size
    except OSError as error:
        raise UnusableWeightsError(f"{path.name} cannot be read: {error.strerror}", hint="check the file") from error
    # First: the length that it begins with may be any byte, a pickle's mark too.
    if head[PREFIX : PREFIX + 1] == b"{" and PREFIX + int.from_bytes(head[:PREFIX], "little") <= size:
        return "safetensors"
    return _binary(head) or _by_suffix(head, path.suffix.lower())


def _binary(head: bytes) -> Kind | None:
    if head.startswith(ZIP):
        return "torch-zip"
    if head[:1] == PICKLE and len(head) > 1 and head[1] <= PROTOCOLS:
        return "torch-pickle"
    if head.split(maxsplit=1)[:1] == [_NCNN]:
        return "ncnn-param"
    return None


def _by_suffix(head: bytes, suffix: str) -> Kind:
    if head.lstrip()[:1] in {b"{", b"["}:
        return "json"
    if head[:1] == _ONNX and (suffix == ".onnx" or (len(head) > len(b"\x08v ") and head[2] in _ONNX_NEXT)):
        return "onnx"
    return "other"
