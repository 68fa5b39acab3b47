"""A worker that cannot be born: why not is said, and nothing of it is left."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from upx.errors import WorkerStartError
from upx.locks import try_lock
from upx.workers import birth, registry
from upx_protocol.options import WorkerOptions

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts descriptors through /proc")


def refused(plan, settings) -> str:
    """Why it cannot be born; no entry and no descriptor is left of it."""
    options = WorkerOptions(plan.backend, plan.module, "ipc:///nowhere")
    with registry.spawn_lock(settings, plan.identity) as held:
        assert held
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(WorkerStartError) as caught:
            birth.bear(plan, settings, (), options)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(settings.workers_dir.rglob("*.json")) == []
    return str(caught.value)


def test_an_interpreter_that_cannot_be_run_is_named(plan, settings, tmp_path) -> None:
    assert "no-python cannot be run" in refused(replace(plan, python=tmp_path / "no-python"), settings)


def test_no_worker_runs_code_that_nobody_can_hold(plan, settings) -> None:
    shutil.rmtree(plan.stage)
    assert "staged code of nearest was removed" in refused(plan, settings)


def test_no_worker_runs_in_an_environment_that_is_being_changed(plan, settings, tmp_path) -> None:
    with try_lock(tmp_path / "use.lock"):
        assert "being changed" in refused(replace(plan, env_lock=tmp_path / "use.lock"), settings)


def test_no_worker_runs_in_an_environment_that_is_gone(plan, settings, tmp_path) -> None:
    plan = replace(plan, env_lock=tmp_path / "use.lock", python=tmp_path / "no-python")
    assert "its environment was removed" in refused(plan, settings)


def test_a_log_that_cannot_be_written_is_named(plan, settings) -> None:
    logs = settings.state_dir / "logs"
    logs.parent.mkdir(parents=True, exist_ok=True)
    logs.touch()
    assert str(logs) in refused(plan, settings)
