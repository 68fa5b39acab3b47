"""Read a file of weights whole or refuse it: every tensor of the network, in its shape, and no other.

The layouts that are out there: a bare state dict (the hub), one under ``params`` or ``params_ema`` (the authors'
folder), with or without ``module.`` before each name. A message names the first key that is wrong.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from upx_backends.hitsr.config import family_of, read_config
from upx_backends.hitsr.model import COLOURS, HitSR
from upx_backends.hitsr.ngram import relative_index
from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUPS = ("params", "params_ema")
PREFIX = "module."
PICKLES = (".pth", ".pt", ".ckpt")
# A constant that upstream saves beside the weights.
CONSTANT = ".relative_position_index"
LAST = "upsample.0.weight"


def load_network(path: str, config: str | None, scale: int, *, family: str = "") -> HitSR:
    """The network of the file at ``path``, float32, on the CPU; ``config``: the path of a config.json, or None.

    ``family``: the one that it has to be of, empty for any. BadInputError: no weights of HiT-SR, of another family or
    scale, or not exactly those that the sizes demand.
    """
    tensors = unwrapped(read(path))
    _check_scale(tensors, scale)
    has = family_of(tensors)
    if family and has != family:
        raise BadInputError(f"wrong family: these are weights of HiT-{has.upper()}, not of HiT-{family.upper()}")
    sizes = read_config(config, has, scale)
    with torch.device("meta"):
        network = HitSR(sizes)
    weights = _matched(tensors, network.state_dict())
    network.load_state_dict(weights, strict=True, assign=True)
    network.eval().requires_grad_(requires_grad=False)
    network.prepare()
    return network


def read(path: str) -> Mapping[str, Any]:
    """What is in the file: a table of tensors, perhaps under others; BadInputError when it is none."""
    try:
        if Path(path).suffix.lower() in PICKLES:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        else:
            found = load_file(path)
    except MemoryError:
        raise
    except (OSError, SafetensorError) as error:
        raise BadInputError(f"{Path(path).name} cannot be read as weights: {error}") from error
    except Exception as error:  # a file that is not what it says breaks its reader in any way there is
        raise BadInputError(f"{Path(path).name} is no checkpoint: {type(error).__name__}") from error
    if not isinstance(found, dict) or not found:
        raise BadInputError(f"{Path(path).name} holds no table of tensors")
    return found


def unwrapped(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name to tensor, without a wrapper and without ``module.``."""
    for group in GROUPS:
        if isinstance(found.get(group), dict):
            found = found[group]
            break
    else:
        # safetensors has no tables in tables: a wrapper is part of the name there.
        for group in GROUPS:
            if found and all(name.startswith(f"{group}.") for name in found):
                found = {name.removeprefix(f"{group}."): each for name, each in found.items()}
    tensors: dict[str, Tensor] = {}
    for name, each in found.items():
        if not isinstance(each, Tensor):
            raise BadInputError(f"{name} is no tensor")
        if tensors.setdefault(short := name.removeprefix(PREFIX), each) is not each:
            raise BadInputError(f"{short} is there twice, with and without {PREFIX!r}")
    return tensors


def _check_scale(tensors: Mapping[str, Tensor], wanted: int) -> None:
    """The last convolution makes 3 * scale^2 channels."""
    if LAST not in tensors:
        raise BadInputError(f"these are no weights of HiT-SR: {LAST} is missing")
    has = (tensors[LAST].shape[0] / COLOURS) ** 0.5 if tensors[LAST].ndim else 0.0
    if has != wanted:
        raise BadInputError(f"wrong scale: {LAST} is for x{has:g}, the model asked for is x{wanted}")


def _matched(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that is wanted, as float32 channels-last; BadInputError with the first key that is wrong."""
    for name, like in wanted.items():
        if name not in tensors:
            raise BadInputError(f"{name} is missing")
        if (has := tensors[name]).shape != like.shape:
            raise BadInputError(f"{name} has the shape {list(has.shape)}, {list(like.shape)} is wanted")
        if not has.is_floating_point():
            raise BadInputError(f"{name} is {has.dtype}, a float is wanted")
    for name, tensor in tensors.items():
        if name not in wanted and not _is_constant(name, tensor, wanted):
            raise BadInputError(f"{name} is unexpected")
    return {name: _laid_out(tensors[name]) for name in wanted}


def _is_constant(name: str, tensor: Tensor, wanted: Mapping[str, Tensor]) -> bool:
    """The index of positions where there is a table for it; with other values it would be another network."""
    table = name.removesuffix(CONSTANT) + ".relative_position_bias_table"
    return name.endswith(CONSTANT) and table in wanted and torch.equal(tensor, relative_index())


def _laid_out(tensor: Tensor) -> Tensor:
    """Memory of its own, in the order in which convolutions take it here."""
    four = tensor.ndim == 4  # noqa: PLR2004  (out, in, kernel, kernel)
    return torch.empty_like(
        tensor, dtype=torch.float32, memory_format=torch.channels_last if four else torch.contiguous_format
    ).copy_(tensor)
