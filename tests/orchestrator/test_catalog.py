"""The catalogue: manifests from three places, and one bad one that harms no other."""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path

import pytest

from upx.catalog import Catalog
from upx.config import Settings
from upx.errors import ManifestError, UnknownBackendError

MANIFEST = """
schema = 1
name = "{name}"
default_model = "{name}-x2"

[[models]]
name = "{name}-x2"
scale = 2
"""


@pytest.fixture
def settings(tmp_path):
    return Settings.from_env({"UPX_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})


def add(settings, name, text=MANIFEST):
    folder = settings.backends_dir / name
    folder.mkdir(parents=True)
    (folder / "backend.toml").write_text(text.format(name=name))
    (folder / "env.lock").touch()
    return folder


def test_our_own_backends_are_found_without_importing_them(settings):
    before = set(sys.modules)
    names = [spec.name for spec in Catalog(settings).backends()]
    assert {"nearest", "span"} <= set(names)
    assert not {name for name in set(sys.modules) - before if name.startswith("upx_backends")}


def test_our_own_locks_exist(settings):
    for spec in Catalog(settings).backends():
        if spec.kind == "weights":
            continue
        assert (spec.folder / "worker.py").is_file()
        assert spec.env.lock.is_file(), spec.name


def test_a_folder_of_the_users_is_a_backend(settings):
    folder = add(settings, "mine")
    spec = Catalog(settings).backend("mine")
    assert spec.folder == folder
    assert spec.env.lock == folder / "env.lock"
    assert spec.model("mine-x2").scale == 2


def test_an_installed_package_names_itself_and_is_not_imported(settings, tmp_path, monkeypatch):
    site = tmp_path / "site"
    package = site / "stranger_pkg" / "inner"
    package.mkdir(parents=True)
    (site / "stranger_pkg" / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "backend.toml").write_text(MANIFEST.format(name="stranger"))
    (package / "env.lock").touch()
    info = site / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[upx.backends]\nstranger = stranger_pkg.inner\n")
    monkeypatch.syspath_prepend(str(site))
    spec = Catalog(settings).backend("stranger")
    assert spec.module == "stranger_pkg.inner"
    assert spec.folder == package


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("scale = 2", 'scale = 2\naliases = ["{name}-x2"]'), "is an alias of models and another name", "README"),
        (("default_model", "tilling = 3\ndefault_model"), "unknown key tilling", "did you mean tiling"),
        (("scale = 2", "scale = 0"), "models.0.scale", "README"),
        (("scale = 2", 'scale = "2"'), "models.0.scale", "README"),
        (("schema = 1", "schema = 2"), "schema", "README"),
        (('-x2"\n\n', '-x9"\n\n'), "default_model", "README"),
        (("schema = 1", "schema = = 1"), "Invalid value", "README"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named_and_harms_no_other(settings, change, message, hint):
    add(settings, "broken", MANIFEST.replace(*change))
    catalog = Catalog(settings)
    with pytest.raises(ManifestError, match=message) as caught:
        catalog.backend("broken")
    assert str(settings.backends_dir / "broken") in str(caught.value)
    assert hint in caught.value.hint
    assert catalog.backend("nearest").name == "nearest"
    assert catalog.broken() == ["broken"]


def test_two_backends_of_one_name_are_an_error_that_names_both_places(settings):
    folder = add(settings, "nearest")
    catalog = Catalog(settings)
    with pytest.raises(ManifestError, match="two backends are called 'nearest'") as caught:
        catalog.backend("nearest")
    assert str(folder) in str(caught.value)
    assert "upx_backends" in str(caught.value)
    assert catalog.backend("span").name == "span"


def test_a_manifest_that_says_another_name_than_its_folder_is_refused(settings):
    folder = add(settings, "one")
    shutil.move(folder, folder.with_name("two"))
    with pytest.raises(ManifestError, match="name is 'one', its place says 'two'"):
        Catalog(settings).backend("two")


def test_an_unknown_name_suggests_the_nearest(settings):
    with pytest.raises(UnknownBackendError) as caught:
        Catalog(settings).backend("neares")
    assert "did you mean nearest?" in caught.value.hint


def test_an_asset_never_points_out_of_its_package(settings):
    evil = MANIFEST + (
        '\n[[models.assets]]\nrole = "weights"\nfile = "w"\nsha256 = "' + "0" * 64 + '"\nsize = 1\n'
        'sources = [{{ kind = "package", package = "p", path = "../../etc/passwd" }}]\n'
    )
    add(settings, "evil", evil)
    with pytest.raises(ManifestError, match="path"):
        Catalog(settings).backend("evil")


def test_a_manifest_is_checked_once_and_again_when_it_changes(settings, monkeypatch):
    add(settings, "mine")
    Catalog(settings).backend("mine")
    with monkeypatch.context() as patch:
        patch.setattr("upx.manifest.backend.parse", lambda *_: pytest.fail("checked again"))
        assert Catalog(settings).backend("mine").model("mine-x2").scale == 2
    manifest = settings.backends_dir / "mine" / "backend.toml"
    manifest.write_text(manifest.read_text().replace("scale = 2", "scale = 3"))
    assert Catalog(settings).backend("mine").model("mine-x2").scale == 3


def test_a_cache_that_cannot_be_read_or_written_costs_nothing_but_time(settings):
    settings.cache_dir.parent.mkdir(parents=True)
    settings.cache_dir.write_text("a file where the folder would be")
    assert Catalog(settings).backend("nearest").models


@pytest.mark.parametrize(
    "kept", [b"[]", b"null", b"42", b'{"table": {}}', b'{"table": {"name": "mine"}, "digest": ""}']
)
def test_a_cache_of_another_shape_is_checked_anew_instead_of_believed(settings, kept):
    add(settings, "mine")
    Catalog(settings).backends()
    for path in (settings.cache_dir / "manifests").iterdir():
        path.write_bytes(kept)
    assert Catalog(settings).backend("mine").model("mine-x2").scale == 2
    assert Catalog(settings).backend("nearest").models


def test_a_cache_without_space_leaves_nothing_half_written(settings, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert Catalog(settings).backend("nearest").models
    assert list((settings.cache_dir / "manifests").iterdir()) == []


def test_a_backend_without_its_lock_is_unusable_and_harms_no_other(settings):
    folder = add(settings, "mine")
    (folder / "env.lock").unlink()
    catalog = Catalog(settings)
    with pytest.raises(ManifestError, match="lock is missing") as caught:
        catalog.backend("mine")
    assert "uv pip compile" in caught.value.hint
    assert {"nearest", "span"} <= {spec.name for spec in catalog.backends()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine", MANIFEST.replace("schema = 1", 'schema = 1\naliases = ["nearest"]')),
        ("mine", MANIFEST.replace("{name}-x2", "span-x4")),
        ("nearest-x4", MANIFEST),
    ],
)
def test_a_name_that_means_another_backend_already_stays_with_that_one(settings, name, text):
    add(settings, name, text)
    catalog = Catalog(settings)
    assert catalog.broken() == [name]
    (error,) = catalog.problems()
    assert "already means" in str(error)
    assert "upx_backends" in str(error)
