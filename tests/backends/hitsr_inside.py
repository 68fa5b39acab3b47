"""What only torch can look at, in the backend's own environment: hitsr_inside.py TASK FOLDER...; prints one JSON line.

Arguments after the task: the folders of the backends and of the protocol, then the task's own.
"""

from __future__ import annotations

import json
import sys

sys.path[:0] = sys.argv[2:4]
import torch  # noqa: E402

from upx_backends.hitsr import maps  # noqa: E402
from upx_backends.hitsr.weights import load_network, read  # noqa: E402

torch.set_num_threads(1)
PICTURE = torch.rand(40, 56, 3, generator=torch.Generator().manual_seed(1))


def save(source: str, folder: str) -> dict[str, str]:
    """The file's tensors in every layout that checkpoints come in; path by name."""
    tensors = read(source)
    prefixed = {f"module.{name}": each for name, each in tensors.items()}
    name = next(iter(tensors))
    layouts = {
        "bare": tensors,
        "params": {"params": tensors},
        "params_ema": {"params_ema": tensors, "iter": 5},
        "module": prefixed,
        "both": {"params": prefixed},
        "half": {"params": {name: each.half() if each.is_floating_point() else each for name, each in tensors.items()}},
        "nothing": {"params": {}},
        "no-tensor": {"params": {**tensors, name: 3}},
        "twice": {"params": {**tensors, f"module.{name}": tensors[name] + 1}},
        "list": [tensors],
    }
    for layout, content in layouts.items():
        torch.save(content, f"{folder}/{layout}.pth")
    return {layout: f"{folder}/{layout}.pth" for layout in layouts}


@torch.inference_mode()
def ways(*paths: str) -> dict[str, list[float]]:
    """For each network: how far torch's plain matrix product, two threads, fp16 and bf16 are from what runs."""
    found: dict[str, list[float]] = {"plain": [], "threads": [], "fp16": [], "bf16": []}
    for path in paths:
        network = load_network(path, None, 4)
        exact = network(PICTURE)
        maps._ONEDNN, kept = False, maps._ONEDNN
        found["plain"].append(float((network(PICTURE) - exact).abs().max()))
        maps._ONEDNN = kept
        torch.set_num_threads(2)
        found["threads"].append(float((network(PICTURE) - exact).abs().max()))
        torch.set_num_threads(1)
        for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
            lowered = load_network(path, None, 4)
            lowered.lower(dtype)
            found[name].append(float((lowered(PICTURE) - exact).abs().mean()))
    return found


print(json.dumps({"save": save, "ways": ways}[sys.argv[1]](*sys.argv[4:])))
