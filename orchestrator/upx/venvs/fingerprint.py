"""What makes two environments the same: the flavour that is meant, its lock files, and the digest of both.

Two digests, because uv picks the interpreter while it builds. The *key* (recipe, lock bytes, flavour, extras,
interpreter asked for, platform) is known beforehand, so that a built environment is found without starting
anything; the *fingerprint* adds the interpreter that was found, and names the folder.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upx.errors import EnvBuildError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upx.config import Settings
    from upx.specs import EnvSpec

# Raised whenever the same lock would be built differently.
RECIPE = 1
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built: ``flavour`` is resolved, ``request`` is the interpreter that uv is asked for."""

    spec: EnvSpec
    flavour: str
    extras: tuple[str, ...]
    locks: tuple[Path, ...]
    request: str
    key: str


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The interpreter of a built environment; ``libc`` as in ``glibc2.36``, empty where there is none."""

    implementation: str
    version: str
    libc: str


def plan_for(spec: EnvSpec, settings: Settings, *, flavour: str = "auto", extras: Iterable[str] = ()) -> Plan:
    """Decide what is meant; UsageError for a flavour or extra that does not exist."""
    resolved = resolve_flavour(spec, flavour, gpu=spec.cpu_lock is not None and has_nvidia_gpu(settings))
    chosen = tuple(sorted(set(extras)))
    lock = spec.cpu_lock if resolved == "cpu" and spec.cpu_lock is not None else spec.lock
    locks = (lock, *(extra_lock(lock, extra) for extra in chosen))
    request = settings.python or spec.python
    digests = [_file_digest(path, spec.name) for path in locks]
    key = digest(str(RECIPE), resolved, request, platform_tag(), *chosen, *digests)
    return Plan(spec, resolved, chosen, locks, request, key)


def resolve_flavour(spec: EnvSpec, flavour: str, *, gpu: bool) -> str:
    """``cpu`` or ``default``. ``auto`` takes the CPU lock where there is one, unless ``gpu`` could be used."""
    choices = ("auto", "cpu", "cuda", "default") if spec.cpu_lock else ("auto", "default")
    if flavour not in choices:
        message = f"{spec.name} has no flavour {flavour!r}"
        raise UsageError(message, hint=f"flavours of {spec.name}: {', '.join(choices)}")
    if flavour == "auto":
        return "cpu" if spec.cpu_lock and (spec.cpu_only or not gpu) else "default"
    return "cpu" if flavour == "cpu" else "default"


def extra_lock(lock: Path, extra: str) -> Path:
    """The lock of an opt-in extra, ``<lock>.<extra>.lock`` beside it; UsageError names those that exist."""
    path = lock.with_name(f"{lock.stem}.{extra}.lock")
    if path.is_file() and extra != "cpu":
        return path
    found = sorted(each.name[len(lock.stem) + 1 : -len(".lock")] for each in lock.parent.glob(f"{lock.stem}.*.lock"))
    existing = ", ".join(name for name in found if name != "cpu") or "none"
    raise UsageError(f"{lock.stem} has no extra {extra!r}", hint=f"extras that exist: {existing}")


def has_nvidia_gpu(settings: Settings, *, driver: Path = DRIVER) -> bool:
    """Whether the machine has an NVIDIA driver, told without starting anything."""
    # Not shutil.which: its import costs as much as the whole search for an environment.
    folders = settings.child_env.get("PATH", "").split(os.pathsep)
    tools = (Path(folder, tool) for folder in folders if folder for tool in ("nvidia-smi", "nvidia-smi.exe"))
    return driver.exists() or any(tool.is_file() for tool in tools)


def fingerprint(key: str, interpreter: Interpreter) -> str:
    """The name of the environment's bytes: sha256 in hex."""
    return digest(key, interpreter.implementation, interpreter.version, interpreter.libc)


def platform_tag() -> str:
    """Operating system and processor, the same for every interpreter of this machine."""
    if sys.platform != "win32":
        return f"{sys.platform}-{os.uname().machine}"
    return sysconfig.get_platform()


def digest(*parts: str) -> str:
    """sha256 in hex over ``parts``; no two different lists share an input."""
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def _file_digest(path: Path, name: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        hint = "reinstall upx, or the backend that brought the lock"
        raise EnvBuildError(f"the lock of {name} cannot be read: {path}", hint=hint) from error
