"""How a code is chosen for each token, and every random number that a picture needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """``cfg``: strength of guidance, which rises to it over the scales; 0 turns it off and halves the work.

    ``top_k``: the most likely codes that stay, 0 for all. ``top_p``: of those, as many as share that probability, 0
    for all.
    """

    cfg: float = 6.0
    top_k: int = 1
    top_p: float = 0.75


class Draws:
    """The random numbers of one picture, from its seed and a generator of its own on the device.

    First come the codes, scale by scale, where more than one may be chosen; then the refiner's noise: the start, then
    one draw a step. ``noise`` replaces the latter, draw by draw, by what it gives for (rows, channels): tests alone use
    it, to compare with recorded results (``Recorded``).
    """

    def __init__(
        self,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        noise: Callable[[int, int], Tensor] | None = None,
    ) -> None:
        self.generator = torch.Generator(device=device)
        self.generator.manual_seed(seed)
        self._given = noise

    def choose(self, logits: Tensor, how: Sampling) -> Tensor:
        """``logits`` (L, V) -> a code for each token, (L)."""
        if how.top_k == 1:
            return logits.argmax(dim=-1)  # two that are equal: the first, where upstream draws one of them
        allowed = torch.where(kept(logits, how.top_k, how.top_p), logits, -torch.inf)
        return torch.multinomial(allowed.softmax(dim=-1), 1, generator=self.generator).squeeze(-1)

    def noise(self, rows: int, channels: int) -> Tensor:
        """(rows, channels), normal, float32."""
        if self._given is not None:
            return self._given(rows, channels)
        return torch.randn(rows, channels, generator=self.generator, device=self.generator.device)


class Recorded:
    """Noise that a file held, (draws, rows, channels), float32: one draw after the other, from the first on."""

    def __init__(self, draws: NDArray[np.float32], device: torch.device) -> None:
        self._draws, self._device, self._next = draws, device, 0

    def __call__(self, rows: int, channels: int) -> Tensor:
        """BadInputError where the draws end, or have another shape."""
        if self._next >= len(self._draws) or self._draws.shape[1:] != (rows, channels):
            shape = list(self._draws.shape)
            raise BadInputError(f"the noise has the shape {shape}; draw {self._next} needs [{rows}, {channels}]")
        self._next += 1
        return torch.from_numpy(self._draws[self._next - 1]).to(self._device)


def kept(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """(L, V): which codes may be chosen."""
    stays = torch.ones_like(logits, dtype=torch.bool)
    if 0 < top_k < logits.shape[-1]:
        stays = logits >= logits.topk(top_k, dim=-1).values[:, -1:]
    if top_p > 0:
        ordered, order = torch.where(stays, logits, -torch.inf).sort(dim=-1)  # the least likely first
        falls = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        falls[:, -1] = False
        stays &= ~torch.zeros_like(stays).scatter(-1, order, falls)
    return stays
