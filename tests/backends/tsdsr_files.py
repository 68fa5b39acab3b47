"""Where the golden folder of TSD-SR has the file of each role; read here and in the backend's own environment."""

from __future__ import annotations

FILES = {
    "base-transformer": "sd3_tiny/transformer/diffusion_pytorch_model.safetensors",
    "base-transformer-config": "sd3_tiny/transformer/config.json",
    "base-vae": "sd3_tiny/vae/diffusion_pytorch_model.safetensors",
    "base-vae-config": "sd3_tiny/vae/config.json",
    "transformer-lora": "lora/transformer.safetensors",
    "vae-lora": "lora/vae.safetensors",
    "prompt-embeds": "embeds/prompt_embeds.pt",
    "pool-embeds": "embeds/pool_embeds.pt",
}
