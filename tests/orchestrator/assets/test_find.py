"""Files are looked for in a fixed order, and used only when every byte is what it has to be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from weights_kit import CONTENT, asset, backend, model, receipt, sha256, write

from upx.assets.find import Finder, Found, Missing, digest
from upx.config import Settings
from upx.errors import WeightsError
from upx.specs import HubSource, PackageSource, UrlSource

HUB = HubSource("org/net", "m.weights")
PACKAGE = PackageSource("pack", "models/m.weights")
COMMIT = "a" * 40
WEIGHTS = CONTENT["weights"]


@pytest.fixture
def settings(tmp_path):
    env = {"UPX_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
    return Settings.from_env(env)


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site" / "pack" / "models"
    for role, content in CONTENT.items():
        write(folder / f"m.{role}", content)
    return tmp_path / "site"


def single(*sources, content=WEIGHTS, **more):
    return model("m-x2", asset("weights", content, *(sources or (UrlSource("https://example.org/w"),)), **more))


def finder(settings, spec, **more):
    return Finder(settings, backend(spec), **more)


def look(settings, spec, **more):
    return finder(settings, spec, **more).find(spec, spec.assets[0])


def in_store(settings, spec, content=WEIGHTS, **more):
    store = finder(settings, spec).store
    with store.making() as made:
        made.write_bytes(content)
        return store.put(made, receipt(spec, spec.assets[0], content, **more))


def in_hub_cache(tmp_path, content=WEIGHTS, *, name="blob", revision="main"):
    folder = tmp_path / "hf" / "hub" / "models--org--net"
    blob = write(folder / "blobs" / name, content)
    write(folder / "refs" / revision, COMMIT.encode())
    path = folder / "snapshots" / COMMIT / "m.weights"
    path.parent.mkdir(parents=True)
    path.symlink_to(os.path.relpath(blob, path.parent))
    return path


def test_every_place_is_asked_in_order_and_says_why_not(settings, site):
    spec = single(UrlSource("https://example.org/w"))
    missing = look(settings, spec, site_packages=site)
    assert isinstance(missing, Missing)
    assert [word.partition(":")[0] for word in missing.tried] == ["explicit", "store", "hub", "package"]


def test_the_order_is_explicit_store_hub_package(settings, site, tmp_path):
    spec = single(HUB, PACKAGE)
    assert look(settings, spec, site_packages=site).place == "package"
    in_hub_cache(tmp_path)
    assert look(settings, spec, site_packages=site).place == "hub"
    in_store(settings, spec)
    assert look(settings, spec, site_packages=site).place == "store"
    own = write(tmp_path / "own.bin", b"mine")
    found = look(settings, spec, site_packages=site, weights=own)
    assert (found.place, found.path, found.sha256) == ("explicit", own, sha256(b"mine"))
    assert "--weights" in found.why


def test_a_folder_that_a_setting_names_comes_before_the_store(settings, tmp_path):
    spec = single()
    in_store(settings, spec)
    folder = tmp_path / "named"
    write(folder / "m-x2" / "m.weights", b"mine")
    named = Settings.from_env({"UPX_HOME": str(tmp_path / "home"), "UPX_WEIGHTS": str(folder)})
    found = look(named, spec)
    assert (found.place, found.path.parent.name) == ("explicit", "m-x2")
    assert "UPX_WEIGHTS" in found.why


def test_a_package_of_an_environment_that_is_not_built_is_said(settings):
    missing = look(settings, single(PACKAGE))
    assert "package: the environment of b is not built" in missing.tried


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"number"), "has 6 bytes instead of 7"),
        (lambda path: path.write_bytes(b"numberz"), "differs from its sha256"),
    ],
)
def test_a_damaged_file_of_a_package_is_named_with_the_way_to_mend_it(settings, site, damage, message):
    damage(site / "pack" / "models" / "m.weights")
    with pytest.raises(WeightsError, match=message) as caught:
        look(settings, single(PACKAGE), site_packages=site)
    assert "m.weights" in str(caught.value)
    assert caught.value.hint == "upx setup b --repair brings it back"
    assert caught.value.exit_code == 5


def test_one_changed_byte_in_the_store_is_refused_and_never_passed_over(settings, site):
    spec = single(PACKAGE)
    blob = in_store(settings, spec).resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"numberz")
    with pytest.raises(WeightsError, match=r"m\.weights differs from its sha256") as caught:
        look(settings, spec, site_packages=site)
    assert caught.value.hint == "upx models pull m-x2 mends it"


def test_a_link_out_of_the_store_is_refused(settings, tmp_path):
    spec = single()
    path = in_store(settings, spec)
    path.unlink()
    path.symlink_to(write(tmp_path / "elsewhere", WEIGHTS))
    with pytest.raises(WeightsError, match="leads out of the store"):
        look(settings, spec)


def test_a_file_of_another_release_in_the_store_is_not_taken(settings):
    spec = single()
    in_store(settings, spec, b"older")
    assert "store: another version's file is there" in look(settings, spec).tried


def test_what_a_person_imported_is_taken_though_its_digest_is_another(settings):
    spec = single()
    in_store(settings, spec, b"converted", verified="import")
    assert look(settings, spec).place == "store"


def test_a_file_that_was_converted_is_known_by_its_original(settings):
    spec = single()
    in_store(settings, spec, b"converted", original=sha256(WEIGHTS))
    assert look(settings, spec).place == "store"


def test_the_hub_s_cache_is_found_by_branch_and_by_commit(settings, tmp_path):
    path = in_hub_cache(tmp_path)
    assert look(settings, single(HUB)).path == path
    assert look(settings, single(HubSource("org/net", "m.weights", COMMIT))).path == path
    assert isinstance(look(settings, single(HubSource("org/net", "m.weights", "other"))), Missing)


def test_another_revision_in_the_hub_s_cache_is_passed_over(settings, tmp_path, site):
    in_hub_cache(tmp_path, b"other revision")
    assert look(settings, single(HUB, PACKAGE), site_packages=site).place == "package"


def test_without_a_digest_the_hub_s_own_name_of_the_bytes_is_compared(settings, tmp_path):
    spec = single(HUB, sha256="", unverified="none is published", size=0)
    in_hub_cache(tmp_path, name=sha256(b"what it was"))
    assert isinstance(look(settings, spec), Missing)


@pytest.mark.parametrize("commit", [b"../../../../x", b"\xff\xfe", b""])
def test_a_hub_cache_that_points_elsewhere_is_passed_over(settings, tmp_path, commit):
    path = in_hub_cache(tmp_path)
    write(path.parents[2] / "refs" / "main", commit)
    assert isinstance(look(settings, single(HUB)), Missing)


def test_a_pickle_in_the_hub_s_cache_is_never_used_as_it_comes(settings, tmp_path):
    in_hub_cache(tmp_path)
    spec = single(HUB, file="m.pth")
    assert any("pickle" in word for word in look(settings, spec).tried)


def test_ones_own_folder_is_taken_as_it_is_and_has_a_digest_of_its_own(settings, site, tmp_path):
    spec = model()
    own = tmp_path / "own"
    for role in CONTENT:
        write(own / f"m.{role}", b"mine")
    digests = set()
    for which in ({"weights": own}, {"site_packages": site}):
        looking = finder(settings, spec, **which)
        found = looking.find_all(spec)
        assert all(isinstance(each, Found) for each in found)
        digests.add(digest([(each.role, file) for each, file in zip(spec.assets, found, strict=True)]))
    assert len(digests) == 2


def test_an_incomplete_folder_is_refused(settings, tmp_path):
    with pytest.raises(WeightsError, match=r"m\.net, m\.weights not found"):
        look(settings, model(), weights=tmp_path / "nothing")


def test_a_config_beside_ones_own_weights_overrides_the_released_one(settings, tmp_path):
    spec = single()
    own = write(tmp_path / "own" / "m.weights", b"mine")
    config = write(own.with_name("config.json"), b"{}")
    looking = finder(settings, spec, weights=own.parent)
    found = looking.find_all(spec)
    assert looking.config(spec, found).path == config
    alone = digest([("weights", found[0])])
    assert digest([("weights", found[0]), ("config", looking.config(spec, found))]) != alone


def test_a_config_of_the_store_has_a_receipt_and_is_verified(settings):
    spec = single()
    path = in_store(settings, spec)
    looking = finder(settings, spec)
    write(path.with_name("config.json"), b"{}")
    assert looking.config(spec, looking.find_all(spec)) is None
    path.with_name("config.json").unlink()
    config = asset("config", b"{}", file="config.json")
    with looking.store.making() as made:
        made.write_bytes(b"{}")
        kept = looking.store.put(made, receipt(spec, config, b"{}", verified="import"))
    assert looking.config(spec, looking.find_all(spec)).path == kept
    kept.resolve().chmod(0o644)
    kept.resolve().write_bytes(b"[]")
    with pytest.raises(WeightsError, match=r"config\.json differs") as caught:
        looking.config(spec, looking.find_all(spec))
    assert "import it again" in caught.value.hint


def test_a_pickle_that_is_named_is_never_used_as_it_comes(settings, tmp_path):
    with pytest.raises(WeightsError, match="is a pickle, which is never used as it comes") as caught:
        look(settings, single(), weights=write(tmp_path / "w.pth", b""))
    assert "upx models import" in caught.value.hint
    spec = single(file="m.pth")
    folder = write(tmp_path / "own" / "m.pth", b"").parent
    with pytest.raises(WeightsError, match=r"m\.safetensors not found"):
        look(settings, spec, weights=folder)
    named = Settings.from_env({"UPX_HOME": str(tmp_path / "home"), "UPX_WEIGHTS": str(folder)})
    assert isinstance(look(named, spec), Missing)


def test_a_config_beside_a_package_s_weights_is_none(settings, site):
    write(site / "pack" / "models" / "config.json", b"{}")
    spec = single(PACKAGE)
    looking = finder(settings, spec, site_packages=site)
    assert looking.config(spec, looking.find_all(spec)) is None


def test_a_model_without_files_needs_none(settings):
    spec = model("bare")
    assert finder(settings, spec).find_all(type(spec)("bare", 2)) == []
    assert digest([]) == digest([])


def test_the_folder_of_the_store_is_below_the_data(settings):
    assert finder(settings, single()).store.root == Path(settings.data_dir, "weights")
