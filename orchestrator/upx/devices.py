"""Which device a request means on this machine, and an identity that stays true when numbers change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from upx.specs import BackendSpec

# More workers than this gain nothing but memory; their threads take the rest of the cores.
MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Device:
    """``name`` as backends know it ("cpu", "cuda:0", "mps"); ``identity`` as the registry does (a GPU's UUID)."""

    name: str
    identity: str


def resolve_device(wanted: str, supported: Sequence[str], *, environ: Mapping[str, str]) -> Device:
    """The device for ``wanted`` ("auto", "cpu", "cuda", "cuda:N", "mps"), the best supported one for "auto".

    UsageError when the backend does not support it or the machine does not have it.
    """
    kind, _, number = wanted.partition(":")
    if kind == "auto":
        kind = _best(supported, environ)
    elif kind not in {"cpu", "cuda", "mps"} or (number and not (kind == "cuda" and number.isdigit())):
        raise UsageError(f"no device is called {wanted!r}", hint="-d auto, cpu, cuda, cuda:N or mps")
    if kind not in supported:
        raise UsageError(f"this backend does not run on {kind}", hint=f"it runs on {', '.join(supported)}: -d auto")
    if kind != "cuda":
        return Device(kind, kind)
    uuids = gpu_uuids(environ)
    index = int(number or 0)
    if index >= len(uuids):
        raise UsageError(f"there is no device {wanted}: {len(uuids)} NVIDIA GPUs found", hint="-d auto, or -d cpu")
    return Device(f"cuda:{index}", uuids[index])


def _best(supported: Sequence[str], environ: Mapping[str, str]) -> str:
    if "cuda" in supported and gpu_uuids(environ):
        return "cuda"
    if "mps" in supported and sys.platform == "darwin":
        return "mps"
    return "cpu" if "cpu" in supported else supported[0]


def gpu_uuids(environ: Mapping[str, str]) -> list[str]:
    """UUIDs of the NVIDIA GPUs that a worker would see, in its order; empty where there is no driver."""
    tool = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if tool is None:
        return []
    query = [tool, "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    by_index = dict(line.split(", ", 1) for line in listing.strip().splitlines() if ", " in line)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(by_index.values())
    chosen = [name.strip() for name in visible.split(",") if name.strip()]
    return [by_index.get(name, name) for name in chosen if name in by_index or name in by_index.values()]


def share_cores(spec: BackendSpec, wanted: int, *, device: str, cores: int) -> tuple[int, int]:
    """(workers, threads of each). On a CPU they share the cores; elsewhere one worker feeds the device.

    ``wanted``: workers that the user asked for, 0 for as many as the backend likes best.
    """
    if device != "cpu":
        return wanted or max(spec.workers, 1), spec.threads
    workers = wanted or spec.workers or min(cores, MOST_WORKERS)
    return workers, spec.threads or max(1, cores // workers)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def precision_for(spec: BackendSpec, wanted: str, device: str) -> str:
    """What was asked for; left to us, fp32 on a CPU, where halves are slower, else the backend's first.

    UsageError for one that the backend does not compute in.
    """
    if wanted == "auto":
        return "fp32" if device == "cpu" and "fp32" in spec.precisions else spec.precisions[0]
    if wanted not in spec.precisions:
        raise UsageError(
            f"{spec.name} does not compute in {wanted}", hint=f"--precision {' or '.join(('auto', *spec.precisions))}"
        )
    return wanted
