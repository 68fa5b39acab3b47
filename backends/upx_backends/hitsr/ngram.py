"""N-gram context (HiT-SNG): each window learns what its neighbours hold, before tokens meet inside of it.

Windows are cells of a small map; every cell attends within the 2 x 2 neighbourhoods that begin and that end at it.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from upx_backends.hitsr.maps import linear

SIDE = 2  # of a neighbourhood: n = 2
TOKENS = SIDE * SIDE


@functools.cache
def relative_index(device: torch.device | None = None) -> Tensor:
    """(4, 4): the row of the table for query and key, (dy + 1) * 3 + (dx + 1) of their offset; one for each device."""
    side = torch.arange(SIDE, device=device)
    at = torch.cartesian_prod(side, side)  # (4, 2)
    offset = at[:, None] - at[None] + SIDE - 1
    return offset[..., 0] * (2 * SIDE - 1) + offset[..., 1]


class NeighbourAttention(nn.Module):
    """Softmax attention among the four cells of each neighbourhood, and the mean of their answers."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * SIDE - 1) ** 2, heads))

    def forward(self, extended: Tensor) -> Tensor:
        """(m, nh+1, nw+1, D) -> (m, nh, nw, D), for ``m`` ways to extend the map."""
        _, height, width, dim = extended.shape
        qkv = linear(extended, self.qkv)  # once a cell, though each is in four neighbourhoods
        # Tokens come first: sums and softmax over four things then run along all neighbourhoods at once.
        corners = [(row, column) for row in range(SIDE) for column in range(SIDE)]
        around = torch.stack([qkv[:, row : height - 1 + row, column : width - 1 + column] for row, column in corners])
        q, k, v = around.unflatten(-1, (3, self.heads, -1)).unbind(-3)  # (4, m, nh, nw, h, d) each
        scores = (q[:, None] * k).sum(-1) * (dim // self.heads) ** -0.5  # (4 of q, 4 of k, m, nh, nw, h)
        scores += self.relative_position_bias_table[relative_index(q.device)][:, :, None, None, None]
        # The mean over queries is taken of the weights, and before `proj`: both are linear.
        weights = scores.softmax(dim=1).mean(dim=0)  # (4, m, nh, nw, h)
        return linear((weights[..., None] * v).sum(0).flatten(-2), self.proj)


class NgramContext(nn.Module):
    """Unigrams of windows, attention forward and backward, both merged."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        # Over pairs of channels, one kernel for all pairs; as wide as a window.
        self.unigram_embed = nn.Conv2d(2, 1, window)
        self.ngram_attn = NeighbourAttention(dim // 2, heads)
        self.merge = nn.Conv2d(dim, dim, 1)


class NgramWindows(nn.Module):
    """``ngram_context`` by the name that the files have for it."""

    def __init__(self, dim: int, heads: int, window: int, cells: int) -> None:
        super().__init__()
        self.window, self.cells = window, cells
        self.ngram_context = NgramContext(dim, heads, window)

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Tokens by window, (rows * columns, L, C) -> what to add to all of a window's, (rows * columns, 1, C)."""
        context = self.ngram_context
        unigrams = self._unigrams(tokens).view(1, rows, columns, -1).permute(0, 3, 1, 2)  # (1, D, rows, columns)
        # By reflection: past the last row comes the second to last.
        ways = [functional.pad(unigrams, sides, mode="reflect") for sides in ((0, 1, 0, 1), (1, 0, 1, 0))]
        extended = torch.cat(ways).permute(0, 2, 3, 1).contiguous()  # (2, rows+1, columns+1, D)
        forward, backward = context.ngram_attn(extended)  # (rows, columns, D) each
        return linear(torch.cat([forward, backward], dim=2), context.merge).view(rows * columns, 1, -1)

    def _unigrams(self, tokens: Tensor) -> Tensor:
        """(n, L, C) -> (n, C/2): the kernel times each pair of channels."""
        layer, side = self.ngram_context.unigram_embed, self.window // self.cells
        kernel = layer.weight.view(2, self.cells, side, self.cells, side).permute(0, 1, 3, 2, 4).reshape(1, 2, -1)
        products = kernel @ tokens  # (n, 2, C): each half of the kernel with all channels; of a pair, one is meant
        return products.unflatten(2, (-1, 2)).diagonal(dim1=1, dim2=3).sum(dim=2) + layer.bias
