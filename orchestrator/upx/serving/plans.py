"""What the workers of a box are made of: its environment, the staged code, and the devices that were named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx.devices import gpu_uuids, resolve_device
from upx.errors import NotReadyError, UnknownBackendError, UsageError
from upx.venvs.venv import use_lock_path
from upx.workers.plan import WorkerPlan
from upx.workers.stage import stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.devices import Device
    from upx.models.shelf import Shelf
    from upx.specs import BackendSpec
    from upx.venvs.venv import Venv

EVERY = "all"


def chosen_devices(spec: BackendSpec, words: str, shelf: Shelf) -> list[Device]:
    """The devices that ``words`` name: one of ``-d``'s words, several with commas, or "all" GPUs.

    UsageError for one that there is not.
    """
    environ = shelf.settings.child_env
    if words == EVERY:
        count = len(gpu_uuids(environ)) if "cuda" in spec.devices else 0
        words = ",".join(f"cuda:{number}" for number in range(count)) or "auto"
    named = [word.strip() for word in words.split(",") if word.strip()]
    if not named:
        raise UsageError("no device was named", hint="--device auto, cuda:0,cuda:1 or all")
    return [resolve_device(word, spec.devices, environ=environ) for word in named]


def refuse_unservable(spec: BackendSpec) -> None:
    """UsageError and NotReadyError for a backend that turns no pictures."""
    if spec.kind == "utility":
        raise UnknownBackendError(
            f"{spec.name} serves upx itself and turns no pictures", hint="upx backends lists those that do"
        )
    if spec.kind == "weights":
        raise NotReadyError(f"this version of upx cannot run {spec.name}", hint="upx backends lists what runs")


def ready_env(spec: BackendSpec, devices: Sequence[Device], shelf: Shelf, *, offline: bool) -> Venv:
    """The backend's environment, built if need be; NotReadyError says why not."""
    on_gpu = any(device.name.startswith("cuda") for device in devices)
    flavour = "auto" if on_gpu or spec.env.cpu_lock is None else "cpu"
    return shelf.envs.ensure(spec.env, flavour=flavour, offline=offline, on_progress=shelf.on_event)


def box_plans(name: str, spec: BackendSpec, devices: Sequence[Device], venv: Venv, shelf: Shelf) -> list[WorkerPlan]:
    """One plan a device. No host of this machine takes its worker for one of its own: the box's name is in it."""
    settings = shelf.settings
    staged = stage(spec.folder, spec.module, settings)
    return [
        WorkerPlan(
            backend=spec.name,
            module=f"{spec.module}.worker",
            python=venv.python,
            stage=staged.folder,
            build=staged.digest,
            model="",
            env=venv.fingerprint,
            env_lock=use_lock_path(venv.folder),
            environ={**settings.child_env, **spec.environ},
            device=device.name,
            device_identity=device.identity,
            params={"box": name},
        )
        for device in devices
    ]
