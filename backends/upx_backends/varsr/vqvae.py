"""VARSR's VQVAE, as far as enlarging needs it: the codebook, how codes add up to a latent, and the decoder.

The encoder, and the count of used codes, serve training alone and are not here. Modules are named as in the published
file, since their names are the keys of its tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from upx_backends.varsr.config import Config

EPS = 1e-6
# Convolutions that are shared by the scales, and how much of their result is mixed in.
PHIS, PHI_SHARE = 4, 0.5


class VQVAE(nn.Module):
    """Codes to latent (``quantize``), latent to picture."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.quantize = Quantizer(config)
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 3, padding=1)
        self.decoder = Decoder(config)

    def forward(self, latent: Tensor) -> Tensor:
        """(1, channels, h, w) -> (1, 3, 16 h, 16 w), -1..1."""
        return self.decoder(self.post_quant_conv(latent)).clamp(-1, 1)


class Quantizer(nn.Module):
    """The codebook, and the sum over scales that a latent is."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.sides = config.sides
        self.embedding = nn.Embedding(config.vocabulary, config.latent)
        self.quant_resi = nn.Module()
        self.quant_resi.qresi_ls = nn.ModuleList(
            nn.Conv2d(config.latent, config.latent, 3, padding=1) for _ in range(PHIS)
        )

    def add(self, latent: Tensor, indices: Tensor, scale: int) -> Tensor:
        """``latent`` (1, channels, P, P) with the codes of one more scale, ``indices`` (p * p), row by row.

        The last scale is added as it is: upstream's training mixes a convolution in there too, its inference does not.
        """
        side = self.sides[scale]
        codes = self.embedding(indices).T.reshape(1, -1, side, side)  # (p * p, channels) -> (1, channels, p, p)
        if scale + 1 == len(self.sides):
            return latent + codes
        large = functional.interpolate(codes, size=latent.shape[2:], mode="bicubic", align_corners=False)
        phi = self.quant_resi.qresi_ls[phi_of(scale, len(self.sides))]
        return latent + (1 - PHI_SHARE) * large + PHI_SHARE * phi(large)


def phi_of(scale: int, scales: int) -> int:
    """The convolution whose tick, of 1/12 to 11/12, is nearest to scale / (scales - 1); of two the later.

    In whole numbers: upstream's floats decide its two ties by their last bit, and so.
    """
    return min(range(PHIS), key=lambda phi: (abs(36 * scale - (3 + 10 * phi) * (scales - 1)), -phi))


class Decoder(nn.Module):
    """Residual blocks, doubling four times; attention at the lowest level."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        groups, blocks = config.groups, config.vae_blocks
        widths = [config.vae_width * each for each in config.vae_multipliers]
        lowest = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent, widths[lowest], 3, padding=1)
        self.mid = nn.Module()
        self.mid.block_1 = ResBlock(widths[lowest], widths[lowest], groups)
        self.mid.attn_1 = SelfAttention(widths[lowest], groups)
        self.mid.block_2 = ResBlock(widths[lowest], widths[lowest], groups)
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            above = widths[min(level + 1, lowest)]
            stage = nn.Module()
            stage.block = nn.ModuleList(ResBlock(width if each else above, width, groups) for each in range(blocks))
            stage.attn = nn.ModuleList(SelfAttention(width, groups) for _ in range(blocks) if level == lowest)
            if level:
                stage.upsample = nn.Module()
                stage.upsample.conv = nn.Conv2d(width, width, 3, padding=1)
            self.up.append(stage)
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=EPS)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(1, channels, h, w) -> (1, 3, 16 h, 16 w), not clamped."""
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(self.conv_in(x))))
        for stage in reversed(self.up):
            for index, block in enumerate(stage.block):
                x = block(x)
                if stage.attn:
                    x = stage.attn[index](x)
            if hasattr(stage, "upsample"):
                x = stage.upsample.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(functional.silu(self.norm_out(x)))


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, narrow: int, wide: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, narrow, eps=EPS)
        self.conv1 = nn.Conv2d(narrow, wide, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, wide, eps=EPS)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(narrow, wide, 1) if narrow != wide else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(1, narrow, h, w) -> (1, wide, h, w)."""
        inner = self.conv1(functional.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(functional.silu(self.norm2(inner)))


class SelfAttention(nn.Module):
    """Every place of the latent sees every other: one head, quadratic in the latent's area."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=EPS)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, h, w) -> (1, C, h, w)."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)  # (1, h * w, C) each
        seen = functional.scaled_dot_product_attention(*(each.unsqueeze(1).contiguous() for each in (q, k, v)))
        return x + self.proj_out(seen.squeeze(1).transpose(1, 2).reshape(x.shape))


def to_unit(picture: Tensor) -> Tensor:
    """-1..1 -> 0..1, float32."""
    return torch.add(picture, 1).div(2).float()
