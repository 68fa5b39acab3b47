"""The refiner: a small diffusion network that adds to each place of the latent what the codebook cannot say.

Its schedule: Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), arXiv 2102.09672: cosine,
with a learned variance between two bounds, and respaced. The network: an MLP over single places, as in Li et al.,
"Autoregressive Image Generation without Vector Quantization" (2024), arXiv 2406.11838.

Modules are named as in the published file, since their names are the keys of its tensors.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_backends.varsr.config import Config
    from upx_backends.varsr.sampling import Draws

EPS = 1e-6
TRAINED_STEPS, LARGEST_BETA = 1000, 0.999
FREQUENCIES = 128
# The latent's residual was divided by it in training.
OUTPUT_SCALE = 0.6


class Refiner(nn.Module):
    """Noise to residual, in a few steps."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = RefinerNet(config)
        self.schedule = schedule(config.refiner_steps)

    def forward(self, condition: Tensor, cfg: float, draws: Draws) -> Tensor:
        """``condition`` (R, L, C), good and bad, or good alone -> residual (L, channels), float32.

        A ``cfg`` of exactly 1 turns guidance off here, as upstream has it.
        """
        rows = condition[:1] if cfg == 1 else condition
        x = draws.noise(condition.shape[1], self.net.channels)
        for step in reversed(self.schedule):
            t = torch.tensor([step.number], device=x.device)
            out = self.net(x.expand(len(rows), -1, -1), t, rows).float()  # (R, L, 2 * channels)
            eps, share = guide(out, cfg)
            noise = draws.noise(*x.shape) if step is not self.schedule[0] else torch.zeros_like(x)
            x = step.backwards(x, eps, share, noise)
        return x * OUTPUT_SCALE


def guide(out: Tensor, cfg: float) -> tuple[Tensor, Tensor]:
    """(R, L, 2 * channels) -> the noise, guided, and the share of the upper bound of the variance, which is not."""
    eps, v = out.chunk(2, dim=-1)
    noise = eps[0] if len(eps) == 1 else (1 + cfg) * eps[0] - cfg * eps[1]
    return noise, (v[0] + 1) / 2


class Step(NamedTuple):
    """One kept step, its numbers in float64. ``number`` is the trained schedule's, which the network knows."""

    number: int
    x_factor: float
    eps_factor: float
    clean_factor: float
    noisy_factor: float
    upper_log: float
    lower_log: float

    def backwards(self, x: Tensor, eps: Tensor, share: Tensor, noise: Tensor) -> Tensor:
        """One step towards the clean values, from ``x`` (L, channels)."""
        clean = (self.x_factor * x - self.eps_factor * eps).clamp(-1, 1)
        mean = self.clean_factor * clean + self.noisy_factor * x
        log_variance = share * self.upper_log + (1 - share) * self.lower_log
        return mean + (0.5 * log_variance).exp() * noise


def schedule(count: int) -> list[Step]:
    """``count`` steps, evenly of 1000; [0] is the last that is taken. Float64 throughout."""
    kept = [round(index * (TRAINED_STEPS - 1) / (count - 1)) for index in range(count)]
    remaining = np.cumprod(1 - _cosine_betas())[kept]
    before = np.append(1.0, remaining[:-1])
    betas = 1 - remaining / before
    variance = betas * (1 - before) / (1 - remaining)
    # The first is 0, which has no logarithm.
    lower = np.log(np.append(variance[1], variance[1:]))
    columns = (
        np.sqrt(1 / remaining),
        np.sqrt(1 / remaining - 1),
        betas * np.sqrt(before) / (1 - remaining),
        (1 - before) * np.sqrt(1 - betas) / (1 - remaining),
        np.log(betas),
        lower,
    )
    return [Step(number, *row) for number, row in zip(kept, np.stack(columns, axis=1).tolist(), strict=True)]


def _cosine_betas() -> NDArray[np.float64]:
    def left(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    ends = [left(each / TRAINED_STEPS) for each in range(TRAINED_STEPS + 1)]
    return np.array([min(1 - after / now, LARGEST_BETA) for now, after in pairwise(ends)])


class RefinerNet(nn.Module):
    """Predicts noise and variance of each place alone, given its condition and the time."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.refiner_width
        self.channels = config.latent
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = nn.Linear(config.width, width)
        self.input_proj = nn.Linear(config.latent, width)
        self.res_blocks = nn.ModuleList(RefinerBlock(width) for _ in range(config.refiner_depth))
        self.final_layer = FinalLayer(width, 2 * config.latent)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """``x`` (..., channels), ``t`` of as many or one, ``condition`` (..., C) -> (..., 2 * channels)."""
        y = self.time_embed(t) + self.cond_embed(condition)
        h = self.input_proj(x)
        for block in self.res_blocks:
            h = block(h, y)
        return self.final_layer(h, y)


class TimeEmbedding(nn.Module):
    """Cosines and sines of the time, through an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """(N) -> (N, width)."""
        exponents = torch.arange(FREQUENCIES, dtype=torch.float32, device=t.device) / FREQUENCIES
        turns = t.float().unsqueeze(-1) * torch.exp(-math.log(10000) * exponents)
        return self.mlp(torch.cat([turns.cos(), turns.sin()], dim=-1))


class RefinerBlock(nn.Module):
    """An MLP beside its input, modulated by condition and time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Both (..., width)."""
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=-1)
        return h + gate * self.mlp(self.in_ln(h) * (1 + scale) + shift)


class FinalLayer(nn.Module):
    """From the width to noise and variance."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Both (..., width) -> (..., out)."""
        shift, scale = self.adaLN_modulation(y).chunk(2, dim=-1)
        return self.linear(functional.layer_norm(h, h.shape[-1:], eps=EPS) * (1 + scale) + shift)
