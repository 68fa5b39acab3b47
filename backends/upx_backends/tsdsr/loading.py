"""Builds TSD-SR from its eight files: SD3's transformer and VAE as diffusers has them, each with its LoRA folded in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from upx_backends.tsdsr import lora
from upx_backends.tsdsr.checks import check_names
from upx_backends.tsdsr.files import open_tensors, path_of, read_config
from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping

    from torch import Tensor

    Progress = Callable[[str, float, float], None]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Parts:
    """What runs, on the CPU and in one dtype. ``prompt``: (1, tokens, joint), ``pooled``: (1, pooled)."""

    transformer: SD3Transformer2DModel
    vae: AutoencoderKL
    prompt: Tensor
    pooled: Tensor


def load_parts(files: Mapping[str, str], precision: str, progress: Progress) -> Parts:
    """Everything, checked to the last name; BadInputError with the first that is wrong."""
    if precision not in DTYPES:
        raise BadInputError(f"tsdsr computes in {', '.join(DTYPES)}, not in {precision!r}")
    dtype = DTYPES[precision]
    progress("reading the VAE", 0, 3)
    vae = _network(AutoencoderKL, files, "vae", lora.VAE, dtype)
    if vae.quant_conv is not None or vae.post_quant_conv is not None:
        raise BadInputError("base-vae-config: a VAE with quant_conv layers is not the one of Stable Diffusion 3")
    progress("reading the transformer", 1, 3)
    transformer = _network(SD3Transformer2DModel, files, "transformer", lora.TRANSFORMER, dtype)
    progress("reading the prompt", 2, 3)
    config = transformer.config
    prompt = _embedding(files, "prompt-embeds", (1, -1, config.joint_attention_dim)).to(dtype)
    pooled = _embedding(files, "pool-embeds", (1, config.pooled_projection_dim)).to(dtype)
    progress("reading the prompt", 3, 3)
    return Parts(transformer, vae, prompt, pooled)


def _network(kind: Any, files: Mapping[str, str], name: str, pattern: re.Pattern[str], dtype: torch.dtype) -> Any:
    """The base's network with its LoRA, float32 while they are added, ``dtype`` from then on."""
    network = _empty(kind, files, f"base-{name}-config")
    wants = {key: tuple(each.shape) for key, each in network.state_dict().items()}
    base = open_tensors(path_of(files, f"base-{name}"), f"base-{name}")
    check_names(f"base-{name}", {key: tuple(each.shape) for key, each in base.items()}, wants)
    changes = open_tensors(path_of(files, f"{name}-lora"), f"{name}-lora")
    targets = lora.targets(wants, pattern)
    lora.check(f"{name}-lora", changes, targets)
    # Tensor by tensor, so that nothing but the result is ever held as a whole.
    folded = {}
    for key in wants:
        weight = base.pop(key)
        if key in targets:
            a, b = lora.names(key)
            weight = lora.fold(weight, changes[a], changes[b])
        folded[key] = weight.to(dtype)
    network.load_state_dict(folded, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _empty(kind: Any, files: Mapping[str, str], role: str) -> Any:
    """The network that a configuration describes, without memory for its weights."""
    config = read_config(path_of(files, role), role)
    if config.get("_class_name", kind.__name__) != kind.__name__:
        raise BadInputError(f"{role}: it describes a {config['_class_name']}, wanted is a {kind.__name__}")
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except Exception as error:  # a configuration may be wrong in any way there is
        raise BadInputError(f"{role}: it describes no {kind.__name__} ({type(error).__name__}: {error})") from error


def _embedding(files: Mapping[str, str], role: str, wants: tuple[int, ...]) -> Tensor:
    """The one tensor of that file; -1 stands for any length."""
    tensors = open_tensors(path_of(files, role), role)
    shapes = {name: tuple(each.shape) for name, each in tensors.items()}
    has = shapes.get("tensor", ())
    if len(has) == len(wants) and -1 in wants and has[wants.index(-1)] > 0:
        wants = tuple(mine if theirs < 0 else theirs for mine, theirs in zip(has, wants, strict=True))
    check_names(role, shapes, {"tensor": wants})
    return tensors["tensor"]
