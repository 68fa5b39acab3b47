"""VARSR's transformer: it draws a latent scale by scale, each scale in one step, conditioned on the picture to restore.

Qu et al., "Visual Autoregressive Modeling for Image Super-Resolution" (2025), arXiv 2501.18993. The picture is encoded
by plain convolutions to tokens that come first; then follow the grids of tokens, 1 x 1 to 32 x 32. Every token of a
grid is predicted at once from all that came before. The last grid's outputs also condition a small diffusion network
(refiner.py), which adds what the codebook cannot say. Guidance: the network runs twice, for the class "good" and for
the class "bad", and leads away from the second.

R: rows of the batch, 2 for good and bad, 1 without guidance. L: tokens. C: width. P: side of the latent.
Modules are named as in the published file, since their names are the keys of its tensors.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from upx_backends.varsr.refiner import Refiner

if TYPE_CHECKING:
    from upx_backends.varsr.config import Config
    from upx_backends.varsr.sampling import Draws, Sampling
    from upx_backends.varsr.vqvae import Quantizer

# Of all layer norms and of the rotary angles: constants of upstream, whatever the sizes.
EPS = 1e-6
ROTARY_BASE, ROTARY_GRID = 10000.0, 32
LARGEST_SCALE = math.log(100)


class VARSR(nn.Module):
    """The transformer with its conditioner and its refiner: a picture and random numbers in, a latent out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.con_embedding = Conditioner(config)
        self.class_emb = nn.Embedding(2, width)  # 0: good, 1: bad
        self.pos_start = nn.Parameter(torch.empty(1, config.prefix, width))
        self.lvl_embed = nn.Embedding(len(config.sides), width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_nm = Modulation(width)
        self.head = nn.Linear(width, config.vocabulary)
        self.word_embed = nn.Linear(config.latent, width)
        self.decoder_norm = nn.LayerNorm(width, eps=EPS)
        self.diffloss = Refiner(config)

    def prepare(self) -> None:
        """Compute what follows from the class alone: of the released size 340 M parameters then are not needed."""
        for module in list(self.modules()):
            if isinstance(module, (Block, Modulation)):
                module.ada_lin = ByClass(module.ada_lin(self.class_emb.weight))

    def forward(self, picture: Tensor, codes: Quantizer, how: Sampling, draws: Draws) -> Tensor:
        """``picture`` (1, 3, 16 P, 16 P), float32, -1..1 -> latent (1, channels, P, P), float32.

        FloatingPointError where the logits of a scale are no numbers: codes would be chosen of them all the same.
        """
        sides = self.config.sides
        classes = self.class_emb.weight[: 2 if how.cfg else 1]  # (R, C)
        caches = [Cache(self.config.tokens) for _ in self.blocks]
        rotary = rotary_table(self.config, picture.device)
        latent = picture.new_zeros(1, self.config.latent, self.config.side, self.config.side)
        x = self.start(picture, classes)
        used = 0
        for scale, side in enumerate(sides):
            angles = rotary[:, used : used + x.shape[1]]
            used += x.shape[1]
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block(x, classes, angles, cache)
            x = x[:, -(side**2) :]  # the prefix has done its part: (R, L, C)
            logits = self.head(self.head_nm(x, classes)).float()  # (R, L, V)
            if not bool(logits.isfinite().all()):
                raise FloatingPointError(f"the logits of scale {scale}")
            indices = draws.choose(guided(logits, how.cfg * scale / (len(sides) - 1)), how)  # (L)
            latent = codes.add(latent, indices, scale)
            if scale + 1 < len(sides):
                x = self.next_tokens(latent, scale + 1).expand(len(classes), -1, -1)
        del caches  # gigabytes, which the refiner's activations can have
        condition = self.decoder_norm(x + self.word_embed(codes.embedding(indices)))  # (R, L, C)
        residual = self.diffloss(condition, how.cfg, draws)  # (L, channels)
        return latent + residual.T.reshape(latent.shape)

    def start(self, picture: Tensor, classes: Tensor) -> Tensor:
        """The first tokens (R, P * P + 1, C): the picture's, the same in each row, and the row's class."""
        seen = self.con_embedding(picture).flatten(2).transpose(1, 2)  # (1, C, P, P) -> (1, P * P, C)
        tokens = torch.cat([seen.expand(len(classes), -1, -1), classes.unsqueeze(1)], dim=1)
        return tokens + self.pos_start + self.lvl_embed.weight[0]

    def next_tokens(self, latent: Tensor, scale: int) -> Tensor:
        """What is drawn so far, averaged to the next grid: (1, p * p, C)."""
        side = self.config.sides[scale]
        small = functional.interpolate(latent, size=(side, side), mode="area").flatten(2).transpose(1, 2)
        return self.word_embed(small) + self.lvl_embed.weight[scale]


def guided(rows: Tensor, strength: float) -> Tensor:
    """(R, ...) -> (...): the good row, led away from the bad one where there is one."""
    return rows[0] if len(rows) == 1 else (1 + strength) * rows[0] - strength * rows[1]


class Conditioner(nn.Module):
    """Convolutions from pixels to tokens, halving four times."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        channels = config.conditioner
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(channels):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(channels[-1], config.width, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """(1, 3, 16 P, 16 P) -> (1, C, P, P)."""
        x = functional.silu(self.conv_in(picture))
        for conv in self.blocks:
            x = functional.silu(conv(x))
        return self.conv_out(x)


class Modulation(nn.Module):
    """Layer norm whose scale and shift follow from the class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """``x`` (R, L, C), ``classes`` (R, C)."""
        scale, shift = self.ada_lin(classes).unsqueeze(1).chunk(2, dim=-1)  # (R, 1, C) each
        return modulated(x, scale, shift)


class ByClass(nn.Module):
    """What a layer gives for each class, good and bad, in its stead."""

    def __init__(self, results: Tensor) -> None:
        super().__init__()
        self.register_buffer("results", results, persistent=False)

    def forward(self, classes: Tensor) -> Tensor:
        """``classes`` (R, C), the first R of them."""
        return self.results[: len(classes)]


class Block(nn.Module):
    """Attention and a feed-forward network, each scaled, shifted and gated by the class."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.ffn = FeedForward(config.width, config.width * config.mlp_ratio)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))

    def forward(self, x: Tensor, classes: Tensor, angles: Tensor, cache: Cache) -> Tensor:
        """``x`` (R, L, C), ``classes`` (R, C)."""
        gate1, gate2, scale1, scale2, shift1, shift2 = self.ada_lin(classes).unsqueeze(1).chunk(6, dim=-1)
        x = x + gate1 * self.attn(modulated(x, scale1, shift1), angles, cache)
        return x + gate2 * self.ffn(modulated(x, scale2, shift2))


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm without weights of its own, then scaled and shifted."""
    return functional.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class FeedForward(nn.Module):
    """Two layers with GELU, in its tanh form, between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(R, L, C) -> (R, L, C)."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    """Queries and keys of length 1, so that a learned factor per head stands for 1 / sqrt(d)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.scale_mul_1H11 = nn.Parameter(torch.empty(1, config.heads, 1, 1))
        self.q_bias = nn.Parameter(torch.empty(width))
        self.v_bias = nn.Parameter(torch.empty(width))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, angles: Tensor, cache: Cache) -> Tensor:
        """``x`` (R, L, C): each token sees all of ``x`` and all that ``cache`` holds."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = functional.linear(x, self.mat_qkv.weight, bias).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (R, L, 3, heads, d) -> three of (R, heads, L, d)
        factor = self.scale_mul_1H11.clamp(max=LARGEST_SCALE).exp()
        q = rotated(functional.normalize(q, dim=-1) * factor, angles)
        k, v = cache.add(rotated(functional.normalize(k, dim=-1), angles), v)
        seen = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.proj(seen.transpose(1, 2).flatten(2))  # (R, heads, L, d) -> (R, L, C)


class Cache:
    """Keys and values of one block, of up to ``length`` tokens; memory is taken once."""

    def __init__(self, length: int) -> None:
        self.length, self.used = length, 0
        self.memory: Tensor | None = None  # (2, R, heads, length, d)

    def add(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep these, (R, heads, L, d) each; give all that are kept.

        Under autocast ``k`` is float32 and ``v`` a half; attention casts both to that, so that is what is kept.
        """
        if self.memory is None:
            rows, heads, _, size = v.shape
            self.memory = v.new_empty(2, rows, heads, self.length, size)
        end = self.used + v.shape[2]
        self.memory[0, :, :, self.used : end] = k
        self.memory[1, :, :, self.used : end] = v
        self.used = end
        return self.memory[0, :, :, :end], self.memory[1, :, :, :end]


def rotary_table(config: Config, device: torch.device | None = None) -> Tensor:
    """Cosines and sines, (2, tokens, d / 2), float32: rows turn the first half of the pairs, columns the second.

    A token's place is measured in 32nds of its grid, so that a place means the same at every scale.
    """
    size = config.width // config.heads
    frequencies = 1.0 / ROTARY_BASE ** (torch.arange(0, size, 4, dtype=torch.float32)[: size // 4] / size)
    angles: list[Tensor] = []
    for side in (config.side, *config.sides):  # the picture's tokens; then the class token, as a grid of 1 x 1
        place = torch.arange(side, dtype=torch.float32) * (ROTARY_GRID / side)
        turns = torch.outer(place, frequencies)  # (p, d / 4)
        rows = turns.unsqueeze(1).expand(side, side, -1)
        angles.append(torch.cat([rows, rows.transpose(0, 1)], dim=-1).flatten(0, 1))  # (p * p, d / 2)
    table = torch.cat(angles)
    return torch.stack([table.cos(), table.sin()]).to(device)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """``x`` (R, heads, L, d): neighbouring channels 2m and 2m + 1, as a point, turned by angle m of ``angles``."""
    cos, sin = angles  # (L, d / 2) each
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
