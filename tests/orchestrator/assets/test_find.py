"""Weights are used only when every byte is what the manifest says."""

from __future__ import annotations

import hashlib

import pytest

from upx.assets.find import digest, explicit_assets, find_assets
from upx.errors import WeightsError
from upx.specs import Asset, ModelSpec, PackageSource

CONTENT = {"net": b"structure", "weights": b"numbers"}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "site" / "pack" / "models"
    folder.mkdir(parents=True)
    assets = []
    for role, content in CONTENT.items():
        (folder / f"m.{role}").write_bytes(content)
        sha = hashlib.sha256(content).hexdigest()
        assets.append(Asset(role, f"m.{role}", sha, len(content), PackageSource("pack", f"models/m.{role}")))
    return ModelSpec("m-x2", 2, tuple(assets))


def test_whole_files_are_found_by_role(model, tmp_path):
    files = find_assets(model, tmp_path / "site", backend="b")
    assert {role: path.read_bytes() for role, path in files.items()} == CONTENT


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(b"number"), "has 6 bytes instead of 7"),
        (lambda path: path.write_bytes(b"numberz"), "differs from its sha256"),
    ],
)
def test_a_damaged_file_is_named_with_the_way_to_mend_it(model, tmp_path, damage, message):
    damage(tmp_path / "site" / "pack" / "models" / "m.weights")
    with pytest.raises(WeightsError, match=message) as caught:
        find_assets(model, tmp_path / "site", backend="b")
    assert "m.weights" in str(caught.value)
    assert caught.value.hint == "upx setup b --repair brings it back"
    assert caught.value.exit_code == 5


def test_ones_own_folder_is_taken_as_it_is_and_has_a_digest_of_its_own(model, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for role in CONTENT:
        (own / f"m.{role}").write_bytes(b"mine")
    files = explicit_assets(model, own)
    released = find_assets(model, tmp_path / "site", backend="b")
    assert digest(model, files, explicit=True) != digest(model, released, explicit=False)
    (own / "m.net").write_bytes(b"other")
    assert digest(model, files, explicit=True) != digest(model, explicit_assets(model, own), explicit=False)


def test_an_incomplete_folder_is_refused(model, tmp_path):
    with pytest.raises(WeightsError, match=r"m\.net, m\.weights not found"):
        explicit_assets(model, tmp_path / "nothing")
