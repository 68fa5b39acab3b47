from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from venv_kit import House, Index, make_settings, make_wheel

from upx.errors import EnvDamagedError
from upx.venvs.builder import EnvBuilder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upx.venvs.venv import Venv


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(7)


def zero(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))


DAMAGES = {"missing": delete, "size": truncate, "hash": zero}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["alpha/data.bin", "alpha-1.0.dist-info/RECORD", "../../../bin/alpha-run"])
def test_each_kind_of_damage_is_found_and_mended(kind: str, name: str, house: House, builder: EnvBuilder):
    spec = house.spec()
    venv = builder.ensure(spec)
    DAMAGES[kind](venv.site_packages / name)
    found = builder.check(venv, hashes=True)
    assert [(each.path, each.package) for each in found] == [(venv.site_packages / name, "alpha")]
    assert kind in {found[0].kind, "size"}
    repair = builder.repair(spec)
    assert repair.damage == tuple(found)
    assert repair.venv.folder != venv.folder
    assert builder.check(repair.venv, hashes=True) == []
    assert builder.find(spec) == repair.venv
    assert builder.repair(spec).venv == repair.venv


@pytest.mark.parametrize("source", ["wheelhouse", "index"])
@pytest.mark.parametrize("damage", [truncate, zero])
def test_damage_that_the_cache_and_a_sibling_share_is_mended_and_the_sibling_reported(
    source: str, damage: Callable[[Path], None], house: House
):
    with Index(house) as index:
        changes = {"wheelhouse": house.folder} if source == "wheelhouse" else {"index": index.url, "offline": False}
        builder = EnvBuilder(make_settings(house.root, **changes))
        spec, other = house.spec(), house.spec("other", wheels=house.wheels[:1])
        bystander = house.spec("bystander", wheels=house.wheels[1:])
        venv, sibling = builder.ensure(spec), builder.ensure(other)
        builder.ensure(bystander)
        data = venv.site_packages / "alpha" / "data.bin"
        assert data.stat().st_ino == (sibling.site_packages / "alpha" / "data.bin").stat().st_ino
        assert data.stat().st_nlink >= 3, "uv's cache shares the file"
        damage(data)
        repair = builder.repair(spec)
        assert builder.check(repair.venv, hashes=True) == []
        assert [(each.name, each.folder) for each in repair.siblings] == [("other", sibling.folder)]
        assert repair.cache_cleaned
        assert builder.check(builder.repair(other).venv, hashes=True) == []
        fresh = builder.ensure(house.spec("third", wheels=house.wheels[:1]))
        assert builder.check(fresh, hashes=True) == [], "uv's cache still held the damage"


def test_a_repair_offline_without_a_wheelhouse_fails_with_5_and_changes_nothing(house: House, builder: EnvBuilder):
    spec = house.spec()
    venv = builder.ensure(spec)
    zero(venv.site_packages / "alpha" / "data.bin")
    before = snapshot(house.root)
    with pytest.raises(EnvDamagedError, match="damaged in alpha") as caught:
        EnvBuilder(make_settings(house.root)).repair(spec, offline=True)
    assert caught.value.exit_code == 5
    assert "UPX_WHEELHOUSE" in caught.value.hint
    assert snapshot(house.root) == before


def test_a_repair_whose_wheelhouse_lacks_the_package_changes_nothing(house: House, builder: EnvBuilder):
    spec = house.spec()
    venv = builder.ensure(spec)
    zero(venv.site_packages / "alpha" / "data.bin")
    house.wheels[0].unlink()
    before = snapshot(venv.folder)
    with pytest.raises(Exception, match="alpha") as caught:
        builder.repair(spec)
    assert getattr(caught.value, "exit_code", None) == 5
    assert snapshot(venv.folder) == before
    assert [each.folder for each in builder.list_envs()] == [venv.folder]


def test_a_build_from_a_damaged_cache_fetches_what_is_damaged(house: House, builder: EnvBuilder):
    venv = builder.ensure(house.spec())
    truncate(venv.site_packages / "alpha" / "data.bin")
    fresh = builder.ensure(house.spec("other"))
    assert builder.check(fresh, hashes=True) == []


def test_a_wheel_that_contradicts_its_own_record_is_never_called_whole(house: House, builder: EnvBuilder):
    house.wheels[0] = make_wheel(house.folder, "alpha", lie=True)
    with pytest.raises(EnvDamagedError, match=r"data.bin of alpha is damaged where it comes from"):
        builder.ensure(house.spec())
    assert builder.list_envs() == []


def test_a_missing_interpreter_or_configuration_is_damage_and_mended(house: House, builder: EnvBuilder):
    spec = house.spec()
    venv = builder.ensure(spec)
    (venv.folder / "pyvenv.cfg").unlink()
    venv.python.unlink()
    assert {each.path.name for each in builder.check(venv, hashes=False)} == {"pyvenv.cfg", venv.python.name}
    mended: Venv = builder.repair(spec).venv
    assert builder.check(mended, hashes=True) == []


def test_repairing_what_was_never_built_builds_it(house: House, builder: EnvBuilder):
    repair = builder.repair(house.spec())
    assert repair.damage == ()
    assert builder.check(repair.venv, hashes=True) == []
