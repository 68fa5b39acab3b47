"""Bring one worker into the world: its registry entry, and a process that inherits every descriptor it needs.

What it needs and cannot be held is an error and never left out: an environment or a stage that nobody holds may be
removed while the worker runs.
"""

from __future__ import annotations

import dataclasses
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx import locks
from upx.config import IS_WINDOWS
from upx.errors import WorkerStartError
from upx.workers import faults, logs, process, registry
from upx.workers import stage as stages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from upx.config import Settings
    from upx.workers.plan import WorkerPlan
    from upx.workers.registry import WorkerInfo
    from upx_protocol.options import WorkerOptions

NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Born:
    """A worker that has begun: its name, its process, and the entry that it fills in once it has bound."""

    name: str
    process: process.Process
    entry: Path


def bear(
    plan: WorkerPlan,
    settings: Settings,
    living: Iterable[WorkerInfo],
    options: WorkerOptions,
    more: Mapping[str, int] = NOTHING,
) -> Born:
    """Start a worker; only under the spawn lock of its identity, whose ``living`` workers have their ordinals.

    ``options``: what it is told, but for the entry and the descriptors that are made here. ``more``: descriptors that
    it inherits besides, by their option; they stay the caller's. WorkerStartError, or OSError where it cannot be
    registered; then nothing of it is left.
    """
    taken = {info.ordinal for info in living}
    ordinal = next(number for number in range(len(taken) + 1) if number not in taken)
    name = registry.worker_name(plan.backend, plan.identity, ordinal)
    lock_fd, entry = registry.create(
        settings, plan.identity, ordinal, backend=plan.backend, endpoint=options.endpoint, tied=plan.tied
    )
    told = dataclasses.replace(options, entry=str(entry))
    with ExitStack() as stack:
        stack.callback(os.close, lock_fd)
        undo = stack.enter_context(ExitStack())
        undo.callback(entry.unlink, missing_ok=True)
        try:
            started = _spawn(plan, settings, name, told, {"lock_fd": lock_fd, **more})
        except OSError as error:
            raise faults.start_failed(plan, f"{plan.python} cannot be run: {error}") from error
        undo.pop_all()
        return Born(name, started, entry)


def _spawn(
    plan: WorkerPlan, settings: Settings, name: str, options: WorkerOptions, more: Mapping[str, int]
) -> process.Process:
    """Spawn with every descriptor that the worker inherits; the host keeps the writing end of the tie alone."""
    with ExitStack() as stack:
        fds = dict(more)
        for key, hold in (("stage_fd", _hold_stage), ("env_fd", _hold_env)):
            fd = hold(plan)
            if fd >= 0:
                stack.callback(os.close, fd)
                fds[key] = fd
        log_fd, log = logs.open_log(settings.state_dir / "logs", name)
        stack.callback(os.close, log_fd)
        tie = -1
        if plan.tied and not IS_WINDOWS:
            fds["tie_fd"], tie = os.pipe()
            stack.callback(os.close, fds["tie_fd"])
        told = dataclasses.replace(options, **fds).to_json()
        try:
            return process.spawn(plan, told, fds=tuple(fds.values()), tie=tie, log=log, log_fd=log_fd)
        except BaseException:
            if tie >= 0:
                os.close(tie)
            raise


def _hold_stage(plan: WorkerPlan) -> int:
    fd = stages.hold(plan.stage)
    if fd < 0:
        raise WorkerStartError(f"the staged code of {plan.backend} was removed meanwhile", hint="run the command again")
    return fd


def _hold_env(plan: WorkerPlan) -> int:
    """The shared lock of its environment, so that nobody prunes it; -1 where it has none."""
    if plan.env_lock is None:
        return -1
    fd = locks.open_lock(plan.env_lock, shared=True)
    try:
        if locks.take(fd, shared=True) and plan.python.exists():
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise faults.start_failed(plan, "its environment was removed or is being changed by another command")
