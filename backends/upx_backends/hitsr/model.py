"""HiT-SIR, HiT-SNG, HiT-SRF: hierarchical transformers whose windows grow from block to block.

RGB float32 0..1, (H, W, 3), in; (H * scale, W * scale, 3) out, neither clamped nor rounded. Any size: each block
extends its own features. Modules are named as the released files name their tensors.

HiT-SR: Zhang, Zhang, Yu, "HiT-SR: Hierarchical Transformer for Efficient Image Super-Resolution" (2024),
arXiv 2407.05878.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from upx_backends.hitsr.correlation import Correlation
from upx_backends.hitsr.maps import convolve, cut, gelu_, linear, reflect

MEAN = (0.4488, 0.4371, 0.4040)
COLOURS = 3
# Tokens that go through two linear layers at a time on a CPU: what lies between stays in its cache.
STRIP = 4096


@dataclass(frozen=True)
class Config:
    """Sizes as released; ``windows`` are those of a layer's blocks, ``base_window`` the most cells v is pooled to."""

    family: Literal["sir", "sng", "srf"]
    scale: int
    dim: int = 60
    depths: tuple[int, ...] = (6, 6, 6, 6)
    heads: tuple[int, ...] = (6, 6, 6, 6)
    base_window: int = 8
    windows: tuple[int, ...] = (4, 8, 16, 32, 48, 64)
    mlp_ratio: float = 2.0
    img_range: float = 1.0


class HitSR(nn.Module):
    """The whole network."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, self.scale, self.img_range = config.dim, config.scale, config.img_range
        self.conv_first = nn.Conv2d(COLOURS, dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList(
            Layer(config, depth, heads) for depth, heads in zip(config.depths, config.heads, strict=True)
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        self.upsample = nn.ModuleList([nn.Conv2d(dim, COLOURS * self.scale**2, 3, padding=1)])

    def prepare(self) -> None:
        """Compute what depends on the weights alone; to be called once they are there."""
        for module in self.modules():
            if isinstance(module, Correlation):
                module.prepare()

    def lower(self, dtype: torch.dtype) -> None:
        """Go on in that dtype, but for correlations and the norms after them: with trained weights they reach 1e15."""
        ends = [self.conv_first, self.patch_embed, self.norm, self.conv_after_body, self.upsample]
        inside = [part for layer in self.layers for part in layer.parts_to_lower()]
        for part in [*ends, *inside]:
            part.to(dtype)

    def forward(self, picture: Tensor) -> Tensor:
        """(H, W, 3) -> (H * scale, W * scale, 3), float32; what is between has the weights' dtype."""
        mean = picture.new_tensor(MEAN)
        x = ((picture - mean) * self.img_range).to(self.conv_first.weight.dtype)
        first = convolve(x, self.conv_first)  # (H, W, 3) -> (H, W, C)
        x = self.patch_embed["norm"](first)
        for layer in self.layers:
            x = layer(x)
        x = convolve(self.norm(x), self.conv_after_body).add_(first)
        x = convolve(x, self.upsample[0])  # (H, W, C) -> (H, W, 3 * scale^2)
        large = functional.pixel_shuffle(x.permute(2, 0, 1), self.scale).permute(1, 2, 0)  # (H * scale, W * scale, 3)
        return large.float() / self.img_range + mean


class Layer(nn.Module):
    """Blocks of growing windows and a convolution, around which the features pass."""

    def __init__(self, config: Config, depth: int, heads: int) -> None:
        super().__init__()
        blocks = [Block(config, heads, config.windows[index]) for index in range(depth)]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = nn.Conv2d(config.dim, config.dim, 3, padding=1)

    def parts_to_lower(self) -> list[nn.Module]:
        """What may compute in less than float32."""
        return [self.conv, *(part for block in self.residual_group["blocks"] for part in (block.mlp, block.norm2))]

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C) -> (H, W, C)."""
        y = x
        for block in self.residual_group["blocks"]:
            y = block(y)
        return convolve(y, self.conv).add_(x)


class Block(nn.Module):
    """Correlation within windows, then each token by itself; norms come after."""

    def __init__(self, config: Config, heads: int, window: int) -> None:
        super().__init__()
        ngram = config.family == "sng"
        self.window, self.multiple = window, 2 * window if ngram else window
        self.correlation = Correlation(config.dim, heads, window, config.base_window, ngram=ngram)
        self.norm1, self.norm2 = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)
        self.mlp = (ConvFeedForward if config.family == "srf" else FeedForward)(config.dim, config.mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C) -> (H, W, C)."""
        height, width, _ = x.shape
        padded = reflect(x, self.multiple)
        correlated = self.norm1(self.correlation(padded.float()))  # cut into windows
        y, cells = torch.empty_like(padded), self.correlation.cells
        torch.add(cut(padded, self.window, cells), correlated, out=cut(y, self.window, cells))
        y = y[:height, :width].contiguous()
        whole = self.mlp.reaches or y.device.type != "cpu"
        for strip in y.split(height if whole else max(1, STRIP // width)):
            strip.add_(self.norm2(self.mlp(strip)))
        return y


class FeedForward(nn.Module):
    """Two linear layers."""

    reaches = False  # beyond a token

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, int(dim * ratio)), nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C) -> (H, W, C)."""
        return linear(gelu_(linear(x, self.fc1)), self.fc2)


class ConvFeedForward(FeedForward):
    """The same with a look at the neighbours between (HiT-SRF)."""

    reaches = True

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__(dim, ratio)
        hidden = int(dim * ratio)
        depthwise = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)
        self.dwconv = nn.ModuleDict({"depthwise_conv": nn.ModuleList([depthwise])})

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C) -> (H, W, C)."""
        z = gelu_(linear(x, self.fc1))  # (H, W, ratio * C)
        around = gelu_(convolve(z, self.dwconv["depthwise_conv"][0]))
        return linear(z.add_(around), self.fc2)
