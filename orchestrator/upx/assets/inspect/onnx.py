"""What an ONNX file holds: its version, its operator sets, its tensors. Skimmed as protobuf, without the package.

Field numbers are those of onnx.proto (ModelProto, GraphProto, TensorProto). Data is passed over, never copied.
"""

from __future__ import annotations

import math
import mmap
import re
from itertools import islice
from typing import TYPE_CHECKING

from upx.assets.inspect.inventory import Group, Inventory, Tensor
from upx.assets.inspect.protobuf import Message, WrongMessageError
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# TensorProto.DataType; bits of one element, 0 where they differ.
_TYPES = {
    1: ("F32", 32), 2: ("U8", 8), 3: ("I8", 8), 4: ("U16", 16), 5: ("I16", 16), 6: ("I32", 32), 7: ("I64", 64),
    8: ("STRING", 0), 9: ("BOOL", 8), 10: ("F16", 16), 11: ("F64", 64), 12: ("U32", 32), 13: ("U64", 64),
    14: ("C64", 64), 15: ("C128", 128), 16: ("BF16", 16), 17: ("F8_E4M3", 8), 18: ("F8_E4M3FNUZ", 8),
    19: ("F8_E5M2", 8), 20: ("F8_E5M2FNUZ", 8), 21: ("U4", 0), 22: ("I4", 0), 23: ("F4", 0),
}  # fmt: skip
_MODEL_VERSION, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 1, 2, 7, 8, 25
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_VALUES, _INDICES = 1, 2
_FUNCTION_NODE, _NODE_ATTRIBUTE = 7, 5
# AttributeProto: t, tensors, g, graphs.
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
_OUTSIDE = 1
# Loops in branches in loops: more levels than anybody writes.
_DEPTH, _AXES = 16, 64
_LEAVES = re.compile(r"[\x00-\x1f\\]|^/|^[A-Za-z]:|(^|/)\.\.(/|$)")


def read_onnx(path: Path) -> Inventory:
    """The initialisers in one group, the top; UnusableWeightsError for a file that is cut, or reaches outside."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(Message(data, 0, len(data)))
    except OSError as error:
        raise UnusableWeightsError(f"{path.name} cannot be read: {error.strerror}", hint="check the file") from error
    except (WrongMessageError, ValueError) as error:
        hint = "get it again from where it came: it was cut, altered, or is another kind of file"
        raise UnusableWeightsError(f"{path.name} is no usable ONNX file: {error}", hint=hint) from error


def _read(model: Message) -> Inventory:
    version, graphs = model.number(_MODEL_VERSION), list(model.messages(_MODEL_GRAPH))
    if not version or len(graphs) != 1:
        raise WrongMessageError("it has no version, or not one graph")
    tensors: dict[str, Tensor] = {}
    for tensor in _graph_tensors(graphs[0]):
        if tensor.name in tensors:
            raise WrongMessageError(f"it names {tensor.name[:100]!r} twice")
        tensors[tensor.name] = tensor
    for node in (node for each in model.messages(_MODEL_FUNCTION) for node in each.messages(_FUNCTION_NODE)):
        _check_node(node, 1)
    metadata = {"ir_version": str(version), "producer": model.text(_MODEL_PRODUCER)}
    for opset in model.messages(_MODEL_OPSET):
        metadata[f"opset {opset.text(1)}".rstrip()] = str(opset.number(2))
    return Inventory("onnx", (Group("", tensors),), metadata)


def _graph_tensors(graph: Message, depth: int = 0) -> Iterator[Tensor]:
    """The initialisers; on the way, everything else that holds tensors is checked too."""
    if depth > _DEPTH:
        raise WrongMessageError(f"its graphs lie in each other more than {_DEPTH} deep")
    for tensor in graph.messages(_GRAPH_TENSOR):
        yield _tensor(tensor)
    for sparse in graph.messages(_GRAPH_SPARSE):
        for part in (*sparse.messages(_VALUES), *sparse.messages(_INDICES)):
            _tensor(part)
    for node in graph.messages(_GRAPH_NODE):
        _check_node(node, depth + 1)


def _check_node(node: Message, depth: int) -> None:
    for attribute in node.messages(_NODE_ATTRIBUTE):
        for number in _ATTRIBUTE_TENSORS:
            for tensor in attribute.messages(number):
                _tensor(tensor)
        for number in _ATTRIBUTE_GRAPHS:
            for graph in attribute.messages(number):
                for _ in _graph_tensors(graph, depth):
                    pass


def _tensor(message: Message) -> Tensor:
    name, shape, kind = message.text(_NAME), tuple(islice(message.numbers(_DIMS), _AXES + 1)), message.number(_TYPE)
    if kind not in _TYPES:
        raise WrongMessageError(f"{name[:100]!r} has the type {kind}, which is not known")
    if len(shape) > _AXES or any(axis < 0 for axis in shape):
        raise WrongMessageError(f"{name[:100]!r} has a negative size, or more than {_AXES} of them")
    dtype, bits = _TYPES[kind]
    # The location counts whether it is used or not: a reader might.
    _check_places(name, message)
    raw = message.length(_RAW)
    outside = message.number(_LOCATION) == _OUTSIDE
    if raw is not None and bits and not outside and raw * 8 != math.prod(shape) * bits:
        raise WrongMessageError(f"{name[:100]!r} takes {raw} bytes, which {list(shape)} of {dtype} does not")
    return Tensor(name, dtype, shape)


def _check_places(name: str, tensor: Message) -> None:
    """External data lies beside the file or below, nowhere else."""
    for entry in tensor.messages(_EXTERNAL):
        key, value = entry.text(1), entry.text(2)
        if key == "location" and (not value or _LEAVES.search(value)):
            raise WrongMessageError(
                f"the data of {name[:100]!r} would be read from {value[:100]!r}, outside its folder"
            )
        if key in {"offset", "length"} and not value.isdecimal():
            raise WrongMessageError(f"the data of {name[:100]!r} has the {key} {value[:100]!r}")
