"""What the tests of workers share: a home of their own, plans for `nearest`, and pools that are closed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from worker_kit import NEAREST, QUICK, Eyes

from upx.config import Settings
from upx.workers import control
from upx.workers.plan import Timeouts, WorkerPlan
from upx.workers.pool import WorkerPool
from upx.workers.stage import stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home of its own with a short path; no worker outlives the test."""
    home = tmp_path_factory.mktemp("w")
    made = Settings.from_env({**os.environ, "UPX_HOME": str(home)})
    yield made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "TERM_S", 0.2)  # some of them hang by order
        control.stop(made, force=True)


@pytest.fixture
def plan(settings: Settings) -> WorkerPlan:
    """One tied worker of `nearest`, x4."""
    staged = stage(NEAREST, "upx_backends.nearest", settings)
    return WorkerPlan(
        backend="nearest", module="upx_backends.nearest.worker", python=Path(sys.executable), stage=staged.folder,
        build=staged.digest, model="nearest-x4", environ=dict(settings.child_env),
    )  # fmt: skip


@pytest.fixture
def open_pool(settings: Settings) -> Iterator[Callable[..., Eyes]]:
    pools: list[WorkerPool] = []

    def make(plan: WorkerPlan, *, timeouts: Timeouts = QUICK, transport=None, **changes) -> Eyes:
        events: list = []
        plan = replace(plan, **changes)
        pools.append(WorkerPool(plan, settings, on_event=events.append, timeouts=timeouts, transport=transport))
        return Eyes(pools[-1], events)

    yield make
    for pool in pools:
        pool.close()
