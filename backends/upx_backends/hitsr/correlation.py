"""Spatial-channel correlation (SCC): what HiT-SR has in the place of attention. No softmax anywhere.

Within a window of L tokens the features are q and v, C/2 channels each, in h heads of d. v~ is v pooled to at most
b x b cells. The paper's two halves, and how they are computed here, which is the same but for the order of sums:

    spatial, by head:   (q v~^T / d + R) v~   =   q (v~^T v~) / d + R v~
    channel:            v (q^T v / L)^T       =   v (v^T q) / L

so that no L x b^2 map exists but R, the bias by position, which does not depend on the picture and is kept.

HiT-SR: Zhang, Zhang, Yu, "HiT-SR: Hierarchical Transformer for Efficient Image Super-Resolution" (2024),
arXiv 2407.05878.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from upx_backends.hitsr.maps import convolve, cut, linear
from upx_backends.hitsr.ngram import NgramWindows

SLOPE = 0.2


class DualFeatures(nn.Module):
    """QV: a narrow convolutional branch times a linear one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        narrow = dim // 5
        # By number, as in the files; 1 and 3 are the rectifiers.
        self.conv = nn.ModuleDict({
            "0": nn.Conv2d(dim, narrow, 1), "2": nn.Conv2d(narrow, narrow, 3, padding=1), "4": nn.Conv2d(narrow, dim, 1)
        })  # fmt: skip
        self.linear = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(H, W, C) -> the two factors, (H, W, C) each."""
        a = functional.leaky_relu_(linear(x, self.conv["0"]), SLOPE)  # (H, W, C//5)
        a = functional.leaky_relu_(convolve(a, self.conv["2"]), SLOPE)
        return linear(a, self.conv["4"]), linear(x, self.linear)


class PositionBias(nn.Module):
    """phi: a row's and a column's offset -> one number a head; R from it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        narrow = dim // 4 // 4
        self.pos_proj = nn.Linear(2, narrow)
        self.pos1, self.pos2, self.pos3 = (
            nn.Sequential(nn.LayerNorm(narrow), nn.ReLU(), nn.Linear(narrow, out)) for out in (narrow, narrow, heads)
        )

    def forward(self, window: int, cells: int) -> Tensor:
        """R, (h, L, b*b): phi of a token's place less another's, averaged over the others of each cell."""
        side = window // cells
        weight = self.pos_proj.weight
        offsets = torch.arange(1 - window, window, device=weight.device, dtype=weight.dtype)
        grid = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1)  # (2w-1, 2w-1, 2)
        phi = self.pos3(self.pos2(self.pos1(self.pos_proj(grid))))  # (2w-1, 2w-1, h)
        # A cell's tokens are a box of offsets.
        boxes = functional.avg_pool2d(phi.permute(2, 0, 1), side, stride=1)  # (h, 2w-k, 2w-k)
        tokens = torch.arange(window, device=weight.device)
        starts = torch.arange(cells, device=weight.device) * side
        index = tokens[:, None] - starts + window - side  # (w, b): where the box of token and cell begins
        bias = boxes[:, index[:, None, :, None], index[None, :, None, :]]  # (h, w, w, b, b)
        by_token = cut(bias.permute(1, 2, 0, 3, 4).flatten(2), window, cells)  # (1, 1, b, b, k, k, h*b*b)
        return by_token.reshape(window**2, -1, cells**2).transpose(0, 1).contiguous()


class Correlation(nn.Module):
    """SCC over windows of ``window``; ``base`` is the most cells that v is pooled to, on an axis."""

    def __init__(self, dim: int, heads: int, window: int, base: int, *, ngram: bool) -> None:
        super().__init__()
        self.heads, self.window, self.cells = heads, window, min(window, base)
        self.qv = DualFeatures(dim)
        self.spatial_linear = nn.Linear((window // self.cells) ** 2, 1)
        self.pos = PositionBias(dim, heads)
        self.ngram_window_partition = NgramWindows(dim, heads, window, self.cells) if ngram else None
        self.proj = nn.Linear(dim, dim)
        # R, (h, L, b*b), and where two channels are of one head, (C/2, C/2): made by `prepare`.
        self.register_buffer("bias", None, persistent=False)
        self.register_buffer("same_head", None, persistent=False)

    def prepare(self) -> None:
        """Compute what depends on the weights alone."""
        self.bias = self.pos(self.window, self.cells)
        size = self.proj.in_features // (2 * self.heads)
        self.same_head = torch.block_diag(*[self.bias.new_ones(size, size)] * self.heads)

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C), sides multiples of the window -> (H/w, W/w, b, b, k, k, C), ``cut``'s order."""
        tokens, shape = self._tokens(x)
        q, v = tokens.chunk(2, dim=2)  # (n, L, C/2) each
        channel = _product(v, _product(v.mT, q, 1 / self.window**2))
        return linear(torch.cat([self._spatial(q, v), channel], dim=2), self.proj).view(shape)

    def _tokens(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        """(H, W, C) -> QV by window, (n, L, C), and the shape that ``cut`` gives it."""
        a, b = (cut(each, self.window, self.cells) for each in self.qv(x))
        rows, columns = a.shape[:2]
        tokens = torch.mul(a, b, out=x.new_empty(a.shape)).view(rows * columns, self.window**2, -1)
        if self.ngram_window_partition is not None:
            tokens += self.ngram_window_partition(tokens, rows, columns)
        return tokens, a.shape

    def _spatial(self, q: Tensor, v: Tensor) -> Tensor:
        """Both (n, L, C/2) -> (n, L, C/2)."""
        windows, length, half = v.shape
        patches = v.unflatten(1, (self.cells**2, -1))  # (n, b*b, k*k, C/2)
        pooled = torch.einsum("nbkc,k->nbc", patches, self.spatial_linear.weight[0]) + self.spatial_linear.bias
        # v~ is pooled, (n, b*b, C/2)
        gram = _product(pooled.mT, pooled, self.heads / half) * self.same_head  # (n, C/2, C/2)
        by_head = pooled.unflatten(2, (self.heads, -1)).permute(2, 1, 0, 3)  # (h, b*b, n, d)
        placed = torch.bmm(self.bias, by_head.flatten(2))  # (h, L, n*d)
        result = _product(q, gram).unflatten(2, (self.heads, -1))  # (n, L, h, d)
        result += placed.unflatten(2, (windows, -1)).permute(2, 1, 0, 3)
        return result.view(windows, length, half)


def _product(a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
    """The product a b by window, times ``factor``; scaled before it is rounded."""
    return torch.baddbmm(a.new_zeros(1, 1, 1), a, b, beta=0, alpha=factor)
