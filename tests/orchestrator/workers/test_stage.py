"""Stages: the code of one backend and of the protocol, whole, by its digest, quick to find again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_kit import NEAREST

import upx_protocol
from upx.errors import ManifestError
from upx.host import Host
from upx.workers import stage as stages
from upx.workers.stage import prune_stages, stage


def test_a_stage_holds_the_protocol_one_backend_and_nothing_else(settings) -> None:
    made = stage(NEAREST, "upx_backends.nearest", settings)
    names = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()}
    protocol = {f"upx_protocol/{path.name}" for path in Path(upx_protocol.__path__[0]).glob("*.py")}
    assert protocol < names
    assert {"boot.py", ".lock", "upx_backends/__init__.py", "upx_backends/nearest/worker.py"} < names
    assert {name.split("/")[0] for name in names} == {".lock", "boot.py", "upx_backends", "upx_protocol"}
    assert not [
        name for name in names if name.startswith("upx_backends/") and "nearest" not in name and "init" not in name
    ]


def test_a_stage_is_importable_without_the_hosts_packages(settings) -> None:
    made = stage(NEAREST, "upx_backends.nearest", settings)
    code = (
        "import sys; sys.path.insert(0, '.'); import upx_protocol.options, upx_backends; print(upx_backends.__path__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        cwd=made.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert "upx_backends" in done.stdout


def test_the_second_call_is_quick_and_the_same(settings) -> None:
    first = stage(NEAREST, "upx_backends.nearest", settings)
    took = []
    for _ in range(10):
        began = time.perf_counter()
        assert stage(NEAREST, "upx_backends.nearest", settings) == first
        took.append(time.perf_counter() - began)
    assert sorted(took)[5] < 0.010


def test_other_code_or_another_name_is_another_stage(settings, tmp_path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(NEAREST, folder, ignore=shutil.ignore_patterns("__pycache__"))
    digests = {stage(NEAREST, "upx_backends.nearest", settings).digest, stage(folder, "mine", settings).digest}
    assert stage(folder, "upx_backends.nearest", settings).digest in digests
    with (folder / "worker.py").open("a") as file:
        file.write("# changed\n")
    digests.add(stage(folder, "mine", settings).digest)
    assert len(digests) == 3


def test_bytecode_tests_and_hidden_files_change_nothing(settings, tmp_path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(NEAREST, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = stage(folder, "mine", settings)
    for name in ("__pycache__/worker.cpython-311.pyc", "tests/test_it.py", ".DS_Store", "old.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert stage(folder, "mine", settings) == before
    assert not list(before.folder.rglob("test_it.py"))


def test_a_folder_that_is_not_there_is_the_manifests_fault(settings, tmp_path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        stage(tmp_path / "nothing", "nothing", settings)


def test_a_stage_that_a_worker_holds_is_not_pruned(settings) -> None:
    made = stage(NEAREST, "upx_backends.nearest", settings)
    held = stages.hold(made.folder)
    assert prune_stages(settings) == {}
    os.close(held)
    assert stages.digest(NEAREST, "upx_backends.nearest") == made.digest
    assert prune_stages(settings, keep=frozenset({made.digest})) == {}
    size = sum(path.stat().st_size for path in made.folder.rglob("*") if path.is_file())
    assert prune_stages(settings) == {made.folder: size}
    assert not made.folder.exists()
    assert stages.hold(made.folder) == -1
    assert stage(NEAREST, "upx_backends.nearest", settings) == made


def test_a_prune_removes_old_code_and_leaves_what_backends_run_now(settings, tmp_path) -> None:
    now, folder = stage(NEAREST, "upx_backends.nearest", settings), tmp_path / "older"
    shutil.copytree(NEAREST, folder)
    (folder / "worker.py").write_text("# as it was")
    old = stage(folder, "upx_backends.nearest", settings)
    with Host(settings) as host:
        assert list(host.prune()[1]) == [old.folder]
        assert now.folder.exists()
        assert list(host.prune(unused=True)[1]) == [now.folder]


def test_what_a_killed_command_left_is_removed_once_it_is_old(settings) -> None:
    part = settings.stage_dir / "abc.1234.part"
    part.mkdir(parents=True)
    prune_stages(settings)
    assert part.exists(), "somebody may be writing it"
    os.utime(part, (0, 0))
    prune_stages(settings)
    assert not part.exists()


def test_a_worker_holds_its_stage(open_pool, plan, settings) -> None:
    eyes = open_pool(plan)
    eyes.pool.ready(30)
    assert prune_stages(settings) == {}
    eyes.pool.close()
    assert list(prune_stages(settings)) == [plan.stage]
