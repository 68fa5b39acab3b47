from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from upx.errors import EnvDamagedError
from upx.locks import Flock
from upx.venvs.inventory import Stat, freed_bytes
from upx.venvs.marker import MARKER

if TYPE_CHECKING:
    from pathlib import Path

    from venv_kit import House

    from upx.venvs.builder import EnvBuilder


def test_a_new_lock_supersedes_and_a_prune_removes_the_old_environment(house: House, builder: EnvBuilder):
    old = builder.ensure(house.spec())
    new_spec = house.spec(wheels=house.wheels[:1])
    new = builder.ensure(new_spec)
    assert [(each.folder, each.superseded) for each in sorted(builder.list_envs(), key=lambda each: each.superseded)]
    assert not any(each.superseded for each in builder.list_envs()), "without specs nobody knows"
    states = {each.folder: each.superseded for each in builder.list_envs([new_spec])}
    assert states == {old.folder: True, new.folder: False}
    pruned = builder.prune([new_spec])
    assert [each.folder for each in pruned.removed] == [old.folder]
    assert [each.folder for each in builder.list_envs()] == [new.folder]
    assert pruned.freed > 0
    assert pruned.freed <= pruned.removed[0].size


def test_an_environment_in_use_stays_until_it_is_closed(house: House, builder: EnvBuilder):
    venv = builder.ensure(house.spec())
    with builder.use(venv), builder.use(venv):
        pruned = builder.prune(unused=True)
        assert pruned.removed == ()
        assert [each.folder for each in pruned.in_use] == [venv.folder]
        assert builder.list_envs()[0].in_use
    assert not builder.list_envs()[0].in_use
    assert [each.folder for each in builder.prune(unused=True).removed] == [venv.folder]
    assert [path.name for path in venv.folder.parent.iterdir()] == [".tiny.build.lock"]


def test_a_process_that_inherited_the_lock_keeps_the_environment_alone(house: House, builder: EnvBuilder):
    venv = builder.ensure(house.spec())
    command = [sys.executable, "-c", "input()"]
    with builder.use(venv) as lock:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[lock.fd])
    assert builder.prune(unused=True).removed == ()
    worker.communicate(b"\n", timeout=20)
    assert len(builder.prune(unused=True).removed) == 1


def test_an_older_generation_and_an_incomplete_environment_are_removed(house: House, builder: EnvBuilder):
    spec = house.spec()
    first = builder.ensure(spec)
    (first.site_packages / "alpha" / "data.bin").unlink()
    second = builder.repair(spec).venv
    assert {each.folder.name: each.superseded for each in builder.list_envs()} == {
        first.folder.name: True,
        second.folder.name: False,
    }
    (first.folder / MARKER).unlink()
    assert [each.state for each in builder.list_envs()] == ["incomplete", "complete"]
    assert [each.folder for each in builder.prune([spec]).removed] == [first.folder]
    assert builder.find(spec) == second


def test_a_flavour_that_its_spec_no_longer_has_is_superseded(house: House, builder: EnvBuilder):
    import dataclasses

    spec = house.spec()
    cpu = dataclasses.replace(spec, cpu_lock=house.spec("tiny.cpu").lock)
    builder.ensure(cpu, flavour="cpu")
    assert builder.prune([cpu]).removed == ()
    assert len(builder.prune([spec]).removed) == 1


def test_using_what_was_removed_meanwhile_is_said(house: House, builder: EnvBuilder):
    venv = builder.ensure(house.spec())
    builder.prune(unused=True)
    with pytest.raises(EnvDamagedError, match="removed meanwhile"):
        builder.use(venv)
    builder.prune()
    assert [path.name for path in venv.folder.parent.iterdir()] == [".tiny.build.lock"]


def test_folders_that_are_not_ours_are_never_touched(house: House, builder: EnvBuilder):
    venv = builder.ensure(house.spec())
    stranger = venv.folder.parent / "notes"
    stranger.mkdir()
    builder.prune(unused=True)
    assert stranger.exists()


def test_without_locks_builds_end_whole_and_nothing_is_removed(
    house: House, builder: EnvBuilder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Flock, "take", lambda _self, _fd, **_how: "unsupported")
    venv = builder.ensure(house.spec())
    assert builder.check(venv, hashes=True) == []
    leftover = venv.folder.parent / ".building-tiny-000000000000"
    leftover.mkdir()
    assert builder.prune(unused=True).removed == ()
    assert venv.folder.exists()
    assert leftover.exists()


def test_freed_are_only_the_bytes_whose_last_name_goes():
    one, two = (1, 1), (1, 2)
    stats = [Stat(one, 2, 100), Stat(two, 2, 10), Stat(one, 2, 100)]
    assert freed_bytes(stats) == 100


def test_listing_an_empty_data_folder_is_empty(tmp_path: Path, builder: EnvBuilder):
    assert builder.list_envs() == []
    assert builder.prune().removed == ()
