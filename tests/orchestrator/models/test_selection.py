"""Names, bundles and manifests mean models; what means nothing is said with what was meant."""

from __future__ import annotations

import os

import pytest
from fault_server import Content
from shelf_kit import MANUAL, add_backend, asset_text, make_shelf, url

from upx.errors import ManifestError, UnknownBackendError
from upx.models.selection import bundles, by_bundles, by_manifest, by_names

CONTENT = Content(1000, seed=3)


@pytest.fixture
def shelf(tmp_path):
    add_backend(tmp_path, asset_text(None, MANUAL))
    add_backend(tmp_path, asset_text(None, MANUAL), name="keeps", more='kind = "weights"\n')
    return make_shelf(tmp_path)


def names(members):
    return [member.model.name for member in members]


def wanted(tmp_path, shelf, text):
    path = tmp_path / "wanted.toml"
    path.write_text(f"schema = 1\n{text}")
    return by_manifest(shelf, path)


def test_a_name_is_a_model_and_a_backend_all_of_its_models(shelf):
    assert names(by_names(shelf, ["span-x2"])) == ["span-x2"]
    assert names(by_names(shelf, ["nearest", "nearest-x2"])) == ["nearest-x2", "nearest-x3", "nearest-x4"]
    assert names(by_names(shelf, ["pixel"])) == ["nearest-x2", "nearest-x3", "nearest-x4"]


def test_an_unknown_name_is_told_what_it_may_have_meant(shelf):
    with pytest.raises(UnknownBackendError) as caught:
        by_names(shelf, ["span-x5"])
    assert "span-x" in caught.value.hint


def test_a_utility_is_no_model(shelf):
    assert "convert-torch" not in names(shelf.members())


def test_bundles_are_what_manifests_name_and_each_backend(shelf):
    known = bundles(shelf)
    assert names(known["default"]) == ["span-x4"]
    assert {"span-x4", "span-x2"} <= set(names(known["upscalers"]))
    assert not [member for member in known["upscalers"] if member.model.restricted or member.backend.kind == "weights"]
    assert names(known["tsdsr"]) == ["tsdsr", "tsdsr-mse"]
    assert set(names(known["all"])) == set(names(shelf.members()))
    with pytest.raises(UnknownBackendError, match="no bundle") as caught:
        by_bundles(shelf, ["upscaler"])
    assert "did you mean upscalers?" in caught.value.hint


def test_a_manifest_names_models_bundles_and_environments(tmp_path, shelf):
    found = wanted(tmp_path, shelf, 'models = ["span-x2"]\nbundles = ["default"]\nenvs = ["nearest"]\npin = true')
    assert names(found.members) == ["span-x2", "span-x4"]
    assert [spec.name for spec in found.envs] == ["nearest"]
    assert found.pins == {"span-x2", "span-x4"}


def test_a_manifest_s_sources_come_first_and_its_digest_where_none_was_known(tmp_path, shelf):
    text = asset_text(CONTENT, url("https://example.org/w"), table="assets", model='model = "mine-x2"\n')
    (member,) = wanted(tmp_path, shelf, text).members
    (asset,) = member.model.assets
    assert [source.kind for source in asset.sources] == ["url", "manual"]
    assert (asset.sha256, asset.size, asset.unverified) == (CONTENT.sha256, CONTENT.size, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('models = ["nowhere"]', "nowhere"),
        ('bundles = ["nowhere"]', "nowhere"),
        ('envs = ["nowhere"]', "nowhere"),
        ('envs = ["keeps"]', "no environment"),
        ("models = 5", "models"),
        ("shema = 1", "unknown key|shema"),
        (asset_text(CONTENT, MANUAL, table="assets", model='model = "nowhere"\n'), "nowhere"),
        (asset_text(CONTENT, MANUAL, table="assets", model='model = "mine-x2"\n', role="other"), "no role 'other'"),
        (asset_text(CONTENT, MANUAL, table="assets", model='model = "span-x4"\n'), "differs"),
        (asset_text(CONTENT, MANUAL, table="assets", model='model = "mine-x2"\n', file="../../x"), "file"),
        (asset_text(CONTENT, MANUAL, table="assets", model='model = "mine-x2"\n', file="/etc/x"), "file"),
        (asset_text(CONTENT, MANUAL, table="assets", model='model = "mine-x2"\n', file="a\\\\..\\\\x"), "file"),
        (asset_text(CONTENT, url("file:///etc/passwd"), table="assets", model='model = "mine-x2"\n'), "url"),
        (
            asset_text(
                CONTENT, '{ kind = "hf", repository = "a/b", path = "../x" }', table="assets",
                model='model = "mine-x2"\n',
            ),
            "path",
        ),
        ("n = " + "1" * 5000, "digit|limit|exceed"),
        ("a" + ".a" * 20000 + " = 1", "a key of more than"),
        ("[a" + ".a" * 20000 + "]", "a key of more than"),
        ("x = [" + "[" * 5000, "Recursion|Invalid|recursion|nest"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_used_is_named_with_the_first_wrong_thing(tmp_path, shelf, text, message):
    with pytest.raises(ManifestError, match=message) as caught:
        wanted(tmp_path, shelf, text)
    assert "wanted.toml" in str(caught.value)
    assert caught.value.hint


def test_a_manifest_that_is_a_pipe_or_a_folder_is_refused_at_once(tmp_path, shelf):
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", tmp_path):
        with pytest.raises(ManifestError, match="no regular file"):
            by_manifest(shelf, path)


def test_a_manifest_with_a_byte_order_mark_is_read(tmp_path, shelf):
    path = tmp_path / "mark.toml"
    path.write_bytes(b'\xef\xbb\xbfschema = 1\nmodels = ["span-x2"]\n')
    assert names(by_manifest(shelf, path).members) == ["span-x2"]


def test_a_manifest_as_large_as_a_disk_is_refused_without_being_read(tmp_path, shelf):
    path = tmp_path / "huge.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match="larger than any manifest"):
        by_manifest(shelf, path)
