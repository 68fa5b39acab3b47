"""Operations on maps: a picture's features as (H, W, C), channels last, which is also how tokens lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor, nn

# oneDNN's matrix product, which torch itself uses for float32 only when it compiles: twice as fast here as the one that
# functional.linear takes. Only x86 builds have it.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, layer: nn.Linear | nn.Conv2d) -> Tensor:
    """``layer``, linear or a 1x1 convolution, applied to the last axis: (..., C) -> (..., C')."""
    weight = layer.weight.flatten(1)  # (C', C, 1, 1) -> (C', C)
    if _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, layer.bias, "none", [], "")  # noqa: SLF001  its only name
    return functional.linear(x, weight, layer.bias)


def gelu_(x: Tensor) -> Tensor:
    """GELU by the error function, in place; torch.nn.functional has it only with a copy."""
    return torch.ops.aten.gelu_(x)


def convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """``layer``, a convolution that keeps the size, zero-padded: (H, W, C) -> (H, W, C')."""
    # The new axis comes first: so the strides say channels-last, and nothing is copied.
    planes = x[None].permute(0, 3, 1, 2)  # (H, W, C) -> (1, C, H, W)
    return layer(planes).permute(0, 2, 3, 1)[0]


def reflect(x: Tensor, multiple: int) -> Tensor:
    """Extend a map at the bottom and right to multiples of ``multiple``, mirrored as often as that takes."""
    for axis in (0, 1):
        size = x.shape[axis]
        if size % multiple:
            x = x.index_select(axis, _mirrored(size, -(-size // multiple) * multiple, x.device))
    return x


def _mirrored(size: int, wanted: int, device: torch.device) -> Tensor:
    """0, 1, .., size-1, size-2, .., 1, 0, 1, ..: ``wanted`` of them; the edge is not repeated."""
    period = max(1, 2 * size - 2)
    index = torch.arange(wanted, device=device) % period
    return torch.minimum(index, period - index) if size > 1 else index


def cut(x: Tensor, window: int, cells: int) -> Tensor:
    """A view of a map as windows of ``cells`` x ``cells`` patches of tokens.

    (H, W, C) -> (H/w, W/w, b, b, k, k, C) for windows of w = b * k: what follows the first two axes is a window's
    tokens, patch by patch, which is the order of tokens everywhere here.
    """
    height, width, channels = x.shape
    side = window // cells
    split = x.view(height // window, cells, side, width // window, cells, side, channels)
    return split.permute(0, 3, 1, 4, 2, 5, 6)
