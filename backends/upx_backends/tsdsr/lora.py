"""Folds TSD-SR's LoRA into the weights that it was trained beside: ``W' = W + B A``, in float32, once.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), arXiv 2106.09685. Upstream keeps A and B beside
the weights at every call; the sum is the same, and costs nothing when it runs. alpha is the rank, so the factor is 1.

Both files name their tensors ``transformer.MODULE.lora_A.weight`` and ``.lora_B.weight``, the VAE's too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from upx_backends.tsdsr.checks import Shape, check_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

PREFIX = "transformer."
# Which modules have a LoRA. "proj" alone is the first layer of every feed-forward, and the patches' convolution.
TRANSFORMER = re.compile(
    r"(?:.*\.)?(?:attn\.(?:to_[qkv]|to_out\.0|add_[qkv]_proj)|norm1(?:_context)?\.linear|norm_out\.linear|proj|proj_out)\.weight"
)
# The decoder is Stable Diffusion's own.
VAE = re.compile(
    r"encoder\.(?:.*\.)?(?:conv_in|conv_out|conv[12]|conv_shortcut|downsamplers\.0\.conv|to_[qkv]|to_out\.0)\.weight"
)


def targets(shapes: Mapping[str, Shape], pattern: re.Pattern[str]) -> dict[str, Shape]:
    """Of the base's weights those that are folded into, in their order."""
    return {name: shape for name, shape in shapes.items() if pattern.fullmatch(name)}


def names(weight: str) -> tuple[str, str]:
    """A's and B's name in the file, for a weight of the base."""
    module = weight.removesuffix(".weight")
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def expected(targets: Mapping[str, Shape], rank: int) -> dict[str, Shape]:
    """Every tensor of a file of that rank. Linear: A (r, in), B (out, r). Conv: A (r, in, k, k), B (out, r, 1, 1)."""
    shapes: dict[str, Shape] = {}
    for weight, (out, *rest) in targets.items():
        a, b = names(weight)
        shapes[a] = (rank, *rest)
        shapes[b] = (out, rank, *(1 for _ in rest[1:]))
    return shapes


def check(role: str, lora: Mapping[str, Tensor], targets: Mapping[str, Shape]) -> None:
    """BadInputError unless it holds all targets and nothing else, in one rank: that of its first tensor."""
    first = names(next(iter(targets)))[0]
    rank = lora[first].shape[0] if first in lora and lora[first].ndim else 1
    check_names(role, {name: tuple(each.shape) for name, each in lora.items()}, expected(targets, rank))


def fold(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The weight with its LoRA in it, float32, (out, in) or (out, in, k, k)."""
    # In place: of gigabytes of weights, sums and products beside them would leave holes as large as a fifth of them.
    folded = weight.to(torch.float32, copy=True).flatten(1)
    folded.addmm_(b.float().flatten(1), a.float().flatten(1))  # (out, in k k) + (out, r) (r, in k k)
    return folded.reshape(weight.shape)
