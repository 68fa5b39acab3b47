"""A small VARSR or TSD-SR in its environment, on one thread: generative_inside.py NAME BACKENDS PROTOCOL.

"varsr": depth 2, width 128, one square of 512 pixels; the loop with its refiner, and the decoder. "tsdsr": two layers
of width 32 and a VAE of 8 to 24 channels, a picture of 37 x 29. Prints one JSON line: by step what ``product.cost``
says, and its ``arithmetic`` in GFLOP.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [*sys.argv[2:4], str(Path(__file__).parent)]
warnings.simplefilter("ignore")
import torch  # noqa: E402
from product import arithmetic, cost  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    Steps = dict[str, Callable[[], object]]


def varsr() -> Steps:
    """Numbers of no meaning: time does not depend on them."""
    from upx_backends.varsr.config import Config
    from upx_backends.varsr.model import VARSR
    from upx_backends.varsr.sampling import Draws, Sampling
    from upx_backends.varsr.vqvae import VQVAE

    config = Config(depth=2, width=128, heads=2, vae_width=32)
    var, vae = VARSR(config).eval(), VQVAE(config).eval()
    for parameter in var.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    picture = torch.rand(1, 3, config.pixels, config.pixels) * 2 - 1
    latent = torch.randn(1, config.latent, config.side, config.side)
    return {
        "loop and refiner": lambda: var(picture, vae.quantize, Sampling(), Draws(0)),
        "decoder": lambda: vae(latent),
    }


def tsdsr() -> Steps:
    """As above; the LoRA is folded in, so that a network without one costs the same."""
    import numpy as np
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    from upx_backends.tsdsr.loading import Parts
    from upx_backends.tsdsr.model import Noise, Options, TsdSr

    transformer = SD3Transformer2DModel(
        sample_size=32, num_layers=2, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=24,
        caption_projection_dim=32, pooled_projection_dim=20, pos_embed_max_size=36,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 24, 24), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=16, norm_num_groups=8,
        scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    parts = Parts(transformer.eval(), vae.eval(), torch.randn(1, 333, 24), torch.randn(1, 20))
    network = TsdSr(parts, torch.device("cpu"))
    options, noise = Options(process_size=64), Noise(0)
    picture = np.random.default_rng(0).random((29, 37, 3), np.float32)
    pixels = network.pixels(picture, (112, 144))
    latent = torch.randn(1, 16, 14, 18)
    return {
        "encoder": lambda: network.encode(pixels, options),
        "transformer": lambda: network.predict(latent, options),
        "decoder": lambda: network.decode(latent, options),
        "with all around them": lambda: network.enlarge(picture, options, noise),
    }


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps = {"varsr": varsr, "tsdsr": tsdsr}[sys.argv[1]]()
    found = {name: {"arithmetic": arithmetic(call)} for name, call in steps.items()}
    with torch.inference_mode():
        print(json.dumps({name: {**cost(call), **found[name]} for name, call in steps.items()}))


main()
