"""TSD-SR: one step of Stable Diffusion 3 from the latent of an enlarged picture to that of a sharp one.

Dong et al., "TSD-SR: One-Step Diffusion with Target Score Distillation for Real-World Image Super-Resolution" (2024),
arXiv 2411.18263. The two networks are diffusers' own; what is done with them stands here, from top to bottom.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  as everybody calls it

from upx_backends.tsdsr import colour, sizes, tiles
from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from upx_backends.tsdsr.loading import Parts

# The noisiest step of the schedule, sigma = 1: what the LoRA was trained at.
TIMESTEP = 1000.0


@dataclass(frozen=True)
class Options:
    """What may differ from tile to tile; the manifest says what each is. The defaults are upstream's."""

    process_size: int = 512
    latent_tiled_size: int = 64
    latent_tiled_overlap: int = 8
    vae_tile: int = 0
    posterior: str = "sample"
    colour_fix: str = "wavelet"
    depth: str = "8bit"


class TsdSr:
    """The loaded networks. ``offload``: each is on the device only while it computes."""

    def __init__(self, parts: Parts, device: torch.device, *, offload: bool = False) -> None:
        self.device, self.offload = device, offload
        self.transformer, self.vae = parts.transformer, parts.vae
        self.dtype = parts.prompt.dtype
        self.prompt, self.pooled = parts.prompt.to(device), parts.pooled.to(device)
        self.scaling = float(parts.vae.config.scaling_factor)
        config = parts.transformer.config
        # The longest side of a latent that the table of positions covers.
        self.longest = int(config.pos_embed_max_size) * int(config.patch_size)
        if not offload:
            self.transformer.to(device)
            self.vae.to(device)

    def enlarge(self, picture: NDArray[Any], options: Options, noise: Noise) -> NDArray[Any]:
        """(H, W, 3) RGB, float32 0..1, to (4 H, 4 W, 3): uint8 for depth "8bit", float32 for "float"."""
        height, width = picture.shape[:2]
        down, across = sizes.margins(height, width, process_size=options.process_size)
        grown = np.pad(
            picture, ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)), "symmetric"
        )
        result = self._enlarge(grown, options, noise)
        top, left = down // 2 * sizes.SCALE, across // 2 * sizes.SCALE
        result = result[top : top + height * sizes.SCALE, left : left + width * sizes.SCALE]
        source = colour.rounded(picture) if options.depth == "8bit" else picture
        return colour.fix(result, source, options.colour_fix)

    def _enlarge(self, picture: NDArray[Any], options: Options, noise: Noise) -> NDArray[Any]:
        """The same without the fix of colours, for a picture that is not both small and thin."""
        height, width = picture.shape[:2]
        if options.latent_tiled_size > self.longest:
            raise BadInputError(
                f"latent_tiled_size {options.latent_tiled_size}: the model has {self.longest} positions"
            )
        size = sizes.enlarged(height, width, process_size=options.process_size)
        size = sizes.fitting(*size, tile=options.latent_tiled_size, longest=self.longest)
        decoded = self.step(self.pixels(picture, size), options, noise)[0].float()
        if not bool(decoded.isfinite().all()):
            way = "the weights are damaged" if self.dtype == torch.float32 else "take fp32"
            raise BadInputError(f"the networks gave values that are no numbers in {self.dtype}: {way}")
        large = (decoded.clamp(-1, 1) / 2 + 0.5).permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)
        if options.depth == "8bit":
            large = colour.truncated(large)
        return colour.resized(large, sizes.SCALE * height, sizes.SCALE * width)

    def pixels(self, picture: NDArray[Any], size: tuple[int, int]) -> Tensor:
        """(H, W, 3), 0..1, enlarged to ``size`` as (1, 3, H', W'), -1..1, in the networks' dtype."""
        x = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
        return (bicubic(x.to(self.device, self.dtype), size) * 2 - 1).clamp(-1, 1)

    @torch.inference_mode()
    def step(self, pixels: Tensor, options: Options, noise: Noise) -> Tensor:
        """(1, 3, H, W), -1..1, to the same shape: encode, one step, decode. The VAE's shift factor is not used."""
        moments = self.encode(pixels, options)  # (1, 3, H, W) -> (1, 2 C, H/8, W/8)
        z = sample(moments, noise if options.posterior == "sample" else None) * self.scaling
        z_hat = z - self.predict(z, options)  # sigma = 1
        return self.decode(z_hat / self.scaling, options)  # (1, C, H/8, W/8) -> (1, 3, H, W)

    def encode(self, pixels: Tensor, options: Options) -> Tensor:
        """Means and log-variances of the latent, one after the other."""
        with self._resident(self.vae.encoder) as encoder:
            return tiles.encode(encoder, pixels, tile=options.vae_tile)

    def predict(self, z: Tensor, options: Options) -> Tensor:
        """The transformer's velocity for a latent, of its shape; no noise is added, the prompt is always the same."""
        timestep = torch.tensor([TIMESTEP], device=self.device)

        def velocity(latent: Tensor) -> Tensor:
            return transformer(
                hidden_states=latent,
                timestep=timestep,
                encoder_hidden_states=self.prompt,
                pooled_projections=self.pooled,
                return_dict=False,
            )[0]

        with self._resident(self.transformer) as transformer:
            return tiles.predict(
                velocity, z, tile=options.latent_tiled_size, overlap=options.latent_tiled_overlap, longest=self.longest
            )

    def decode(self, latent: Tensor, options: Options) -> Tensor:
        """The picture of a latent that is not scaled any more, about -1..1."""
        with self._resident(self.vae.decoder) as decoder:
            return tiles.decode(decoder, latent, tile=options.vae_tile)

    @contextmanager
    def _resident(self, network: nn.Module) -> Iterator[nn.Module]:
        """The network on the device; with ``offload`` it leaves again, and its memory is given back."""
        if not self.offload:
            yield network
            return
        # They never change: what lies on the CPU stays there, and the copy on the device is dropped.
        kept = [each.data for each in (*network.parameters(), *network.buffers())]
        network.to(self.device)
        try:
            yield network
        finally:
            for each, on_cpu in zip((*network.parameters(), *network.buffers()), kept, strict=True):
                each.data = on_cpu
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


@dataclass(frozen=True)
class Noise:
    """Standard normal noise of a seed: drawn on the CPU in float32, so that all devices and precisions share it."""

    seed: int
    # In its stead, of the latent's shape: for tests.
    given: NDArray[np.float32] | None = None

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """``shape`` is (1, C, H/8, W/8)."""
        if self.given is None:
            return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(self.seed))
        if self.given.shape != shape:
            raise BadInputError(f"the noise has the shape {list(self.given.shape)}, the latent {list(shape)}")
        return torch.from_numpy(self.given)


def sample(moments: Tensor, noise: Noise | None) -> Tensor:
    """A draw of the posterior, (1, 2 C, h, w) to (1, C, h, w); without noise its mean."""
    mean, logvar = moments.chunk(2, dim=1)
    if noise is None:
        return mean
    deviation = torch.exp(logvar.clamp(-30.0, 20.0) / 2)
    return mean + deviation * noise.draw(tuple(mean.shape)).to(mean.device, mean.dtype)


def bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """torch's: a = -0.75, not antialiased. On a CPU it has none for fp16."""
    working = torch.float32 if x.device.type == "cpu" else x.dtype
    return F.interpolate(x.to(working), size=size, mode="bicubic", align_corners=False).to(x.dtype)
