"""What a doctor looks at: each check is one fact about this machine, and the next step where it is wrong."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from upx.cli._render import size_text, time_text
from upx.cli._results import Check
from upx.devices import gpu_uuids, usable_cores
from upx.errors import UpxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upx.config import Settings
    from upx.host import Host
    from upx.specs import BackendSpec
    from upx.venvs.inventory import EnvRecord

LITTLE_SPACE = 1 << 30
UV_TIMEOUT_S = 20.0
# A load may take minutes; a worker that has not bound by then is stuck.
STARTING_S = 600.0
SHM = Path("/dev/shm")  # noqa: S108  # looked at, never written to


def run_checks(host: Host) -> Iterator[Check]:
    """Every check in turn, each as soon as it is known; reading all files of large environments takes a while."""
    settings = host.settings
    yield check_python()
    yield check_uv(settings)
    yield from (check_folder(name, path) for name, path in _folders(settings))
    yield check_sockets(settings)
    yield check_shared_memory(SHM)
    yield check_gpu(gpu_uuids(settings.child_env))
    yield from check_manifests(host)
    yield from check_envs(host)
    yield from check_weights(host)
    yield from check_workers(settings)


def check_python() -> Check:
    """The interpreter that runs us."""
    words = f"{platform.python_version()} on {sys.platform}, {usable_cores()} cores"
    return Check("python", "ok", words)


def check_uv(settings: Settings) -> Check:
    """The builder of environments."""
    from upx.venvs.uv import find_uv

    try:
        path = find_uv(settings)
        asked = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=UV_TIMEOUT_S, check=True
        )
    except UpxError as error:
        return Check("uv", "fail", str(error), error.hint)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("uv", "fail", f"cannot be run: {error}", "reinstall upx-sr, which brings uv along")
    return Check("uv", "ok", f"{asked.stdout.strip()} at {path}")


def check_folder(name: str, path: Path) -> Check:
    """A folder that can be made and written, with space left."""
    there = next((each for each in (path, *path.parents) if each.exists()), path)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check(
            name, "fail", f"{path} cannot be written", "change its permissions, or set UPX_HOME to another folder"
        )
    free = shutil.disk_usage(there).free
    if free < LITTLE_SPACE:
        return Check(
            name, "warn", f"{path}, only {size_text(free)} free", "upx env prune, or set UPX_HOME to a larger disk"
        )
    return Check(name, "ok", f"{path}, {size_text(free)} free")


def check_sockets(settings: Settings) -> Check:
    """Where workers are reached."""
    from upx.workers.endpoints import socket_folder

    try:
        return Check("sockets", "ok", str(socket_folder(settings)))
    except UpxError as error:
        return Check("sockets", "fail", str(error), error.hint)


def check_shared_memory(folder: Path) -> Check:
    """Memory that processes share."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Check("shared memory", "ok", "none; tiles travel through the sockets")
    return Check("shared memory", "ok", f"{folder}, {size_text(shutil.disk_usage(folder).free)} free")


def check_gpu(uuids: Iterable[str]) -> Check:
    """NVIDIA GPUs that workers would see."""
    found = list(uuids)
    words = f"{len(found)} of NVIDIA: {', '.join(found)}" if found else "none of NVIDIA found; models run on the CPU"
    return Check("gpu", "ok", words)


def check_manifests(host: Host) -> Iterator[Check]:
    """Every backend.toml."""
    for spec in host.catalog.backends():
        yield Check(f"backend {spec.name}", "ok", f"{len(spec.models)} models, {spec.folder}")
    for error in host.catalog.problems():
        yield Check("backend", "fail", str(error), error.hint)


def check_envs(host: Host) -> Iterator[Check]:
    """Every environment, file by file."""
    specs = {spec.name: spec for spec in host.catalog.backends()}
    for record in host.envs.list_envs(host.catalog.envs()):
        yield _check_env(host, record, specs.get(record.name))


def _check_env(host: Host, record: EnvRecord, spec: BackendSpec | None) -> Check:
    name, folder = f"environment {record.name}", record.folder
    if record.state == "building":
        return Check(name, "ok", f"{folder} is being built")
    if record.venv is None:
        return Check(name, "warn", f"{folder} is incomplete", "upx env prune removes it")
    damage = host.envs.check(record.venv, hashes=True)
    if damage and not record.superseded:
        first = damage[0]
        words = f"{len(damage)} files damaged, the first: {first.path} ({first.kind})"
        return Check(name, "fail", words, f"upx setup {record.name} --repair" if spec else "upx env prune --unused")
    if record.superseded:
        return Check(name, "warn", f"{folder} has been replaced", "upx env prune removes it")
    return Check(name, "ok", f"{folder}, {size_text(record.size)}, every file as installed")


def check_weights(host: Host) -> Iterator[Check]:
    """The store of weights: every file of a model that a backend knows, by its stamp where it is untouched."""
    store, known = host.shelf.store, {member.model.name: member for member in host.shelf.members()}
    kept = store.models()
    wrong = 0
    for name in kept:
        for receipt in store.receipts(name):
            found = store.find(name, receipt.role)
            if found is not None and (trouble := found.trouble or host.shelf.difference(found)):
                wrong += 1
                hint = f"upx models pull {name} mends it" if name in known else f"upx models rm {name}"
                yield Check("weights", "fail", f"{name}: {receipt.file} {trouble}", hint)
    if not wrong:
        size = size_text(sum(store.blobs().values()))
        yield Check(
            "weights", "ok", f"{len(kept)} models, {size} in {store.root}" if kept else "none fetched or imported"
        )


def check_workers(settings: Settings) -> Iterator[Check]:
    """The workers that are running; what dead ones left behind is swept by looking."""
    from upx.workers.registry import list_workers

    found = list_workers(settings)
    stuck = [each for each in found if each.starting and each.started and time.time() - each.started > STARTING_S]
    for each in stuck:
        words = f"{each.name} has been starting for {time_text(time.time() - each.started)}"
        yield Check("workers", "warn", words, f"upx stop {each.name} --force")
    if not stuck:
        memory = sum(each.memory for each in found)
        yield Check("workers", "ok", f"{len(found)} running, {size_text(memory)}" if found else "none running")


def _folders(settings: Settings) -> tuple[tuple[str, Path], ...]:
    return (("data", settings.data_dir), ("cache", settings.cache_dir), ("state", settings.state_dir))
