"""The store: whole files under their digest, links to them, receipts, and nothing that leads elsewhere."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from weights_kit import asset, model, receipt, sha256

from upx.assets import disk
from upx.assets.receipts import read_receipt
from upx.assets.store import Store
from upx.errors import StoreFullError, WeightsError

CONTENT = b"numbers"
MODEL = model()
WEIGHTS = asset()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "weights")


def put(store, content=CONTENT, of=MODEL, each=WEIGHTS, **more):
    with store.making() as made:
        made.write_bytes(content)
        return store.put(made, receipt(of, each, content, **more))


def test_a_file_lies_under_its_digest_and_is_linked_by_its_model(store):
    path = put(store)
    blob = store.blob(sha256(CONTENT))
    assert path == store.root / "models" / "m-x2" / "m.weights"
    assert path.read_bytes() == CONTENT
    assert path.resolve() == blob.resolve()
    assert not path.readlink().is_absolute()
    assert stat.S_IMODE(blob.stat().st_mode) == 0o444
    assert not list(store.parts.iterdir())


def test_a_receipt_says_where_it_came_from(store):
    put(store, address="https://example.org/w", revision="abc", licence="MIT")
    (found,) = store.receipts("m-x2")
    assert (found.sha256, found.size, found.licence) == (sha256(CONTENT), len(CONTENT), "MIT")
    assert (found.address, found.revision, found.verified) == ("https://example.org/w", "abc", "manifest")
    assert found.source == {"kind": "url"}
    assert store.find("m-x2", "weights").receipt == found


def test_two_models_share_bytes_and_keep_them_until_the_last_goes(store):
    put(store)
    put(store, of=model("other"))
    assert len(store.blobs()) == 1
    assert store.forget("m-x2")
    assert store.sweep() == 0
    assert store.forget("other")
    assert store.sweep() == len(CONTENT)
    assert store.blobs() == {}
    assert store.models() == []


def test_a_model_in_use_is_not_forgotten(store):
    put(store)
    with store.use("m-x2"):
        assert store.in_use("m-x2")
        assert not store.forget("m-x2")
        assert store.find("m-x2", "weights").path.is_file()
    assert not store.in_use("m-x2")
    assert store.forget("m-x2")


def test_nothing_is_used_where_nothing_is(store):
    assert store.use("m-x2") is None
    assert not store.root.exists()


def test_what_is_put_in_again_mends_what_lies_there(store):
    path = put(store)
    blob = store.blob(sha256(CONTENT))
    blob.chmod(0o644)
    blob.write_bytes(b"numberz")
    put(store)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("inside", [False, True])
def test_a_link_that_leads_out_of_the_store_is_trouble(store, tmp_path, inside):
    path = put(store)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENT)
    target = store.root / "pins.json" if inside else elsewhere
    target.write_bytes(CONTENT)
    path.unlink()
    path.symlink_to(target)
    assert store.find("m-x2", "weights").trouble == "is a link that leads out of the store"


def test_a_folder_that_leads_out_of_the_store_is_trouble(store, tmp_path):
    put(store)
    folder = store.folder("m-x2")
    outside = tmp_path / "outside"
    folder.rename(outside)
    (outside / "m.weights").unlink()
    (outside / "m.weights").write_bytes(CONTENT)
    folder.symlink_to(outside, target_is_directory=True)
    assert store.find("m-x2", "weights").trouble
    put(store)
    assert not folder.is_symlink()
    assert store.find("m-x2", "weights").trouble == ""


def test_bytes_that_are_a_link_themselves_are_trouble(store, tmp_path):
    put(store)
    blob = store.blob(sha256(CONTENT))
    elsewhere = tmp_path / "elsewhere"
    blob.rename(elsewhere)
    blob.symlink_to(elsewhere)
    assert store.find("m-x2", "weights").trouble == "is no file of the store"


def test_lost_bytes_and_lost_links_are_told_apart(store):
    path = put(store)
    path.unlink()
    assert store.find("m-x2", "weights").trouble == "has lost its link"
    put(store)
    store.blob(sha256(CONTENT)).unlink()
    assert store.find("m-x2", "weights").trouble == "is missing from the store"


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"sha256": "../../x"}, {"size": "many"}, {"source": []}, {"extra": 1}, {"file": 7},
        {"file": "../../../x"}, {"file": "/etc/passwd"}, {"file": "\ud800"}, {"time": "\udfff"},
        {"source": {"kind": "\ud800"}},
    ],
)  # fmt: skip
def test_a_receipt_of_another_shape_is_none(store, change):
    import json

    put(store)
    (path,) = (store.root / "receipts" / "m-x2").glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert read_receipt(path) is None
    assert store.find("m-x2", "weights") is None


def test_a_receipt_of_another_model_is_none(store):
    put(store)
    (store.root / "receipts" / "m-x2").rename(store.root / "receipts" / "other")
    assert store.find("other", "weights") is None
    assert store.receipts("other") == []


def test_where_links_need_a_privilege_the_bytes_are_shared_or_copied(store, monkeypatch):
    def refused(*_args, **_more):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refused)
    assert put(store).stat().st_ino == store.blob(sha256(CONTENT)).stat().st_ino
    monkeypatch.setattr(Path, "hardlink_to", refused)
    path = put(store, of=model("copied"))
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()
    assert store.find("copied", "weights").trouble == ""


def test_a_full_disk_is_said_before_anything_is_copied(store, tmp_path, monkeypatch):
    source = tmp_path / "w"
    source.write_bytes(CONTENT)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 900, 100))
    with pytest.raises(StoreFullError, match="0 MB are free") as caught:
        store.copy_in(source, receipt(MODEL, WEIGHTS, CONTENT))
    assert "upx models du" in caught.value.hint


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "weights")
    with pytest.raises(WeightsError, match="the store of weights cannot be used"), store.making():
        pass


def test_what_is_not_finished_is_not_left(store):
    def fails():
        with store.making() as made:
            made.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not list(store.parts.iterdir())


def test_a_file_that_changes_while_it_is_copied_is_not_kept(store, tmp_path):
    source = tmp_path / "w"
    source.write_bytes(b"another")
    with pytest.raises(WeightsError, match="changed while it was read"):
        store.copy_in(source, receipt(MODEL, WEIGHTS, CONTENT))
    assert store.blobs() == {}
    assert not list(store.parts.iterdir())


def test_a_killed_maker_s_folder_goes_and_a_living_one_s_stays(store):
    dead = store.parts / "made-dead"
    dead.mkdir(parents=True)
    (dead / "made").write_bytes(b"half")
    (store.parts / "made-dead.lock").touch()
    with store.making() as made:
        made.write_bytes(b"going on")
        assert store.sweep_parts(3600.0) == 4
        assert made.read_bytes() == b"going on"
    assert not list(store.parts.iterdir())


@pytest.mark.parametrize("change", ['"schema": 2', '"schema": 1, "added": [1, 2]'])
def test_the_bytes_of_a_receipt_of_another_version_are_not_swept(store, change):
    put(store)
    (path,) = (store.root / "receipts" / "m-x2").glob("*.json")
    path.write_text(path.read_text().replace('"schema": 1', change))
    assert store.find("m-x2", "weights") is None
    assert store.sweep() == 0
    assert sha256(CONTENT) in store.blobs()


def test_a_receipt_that_cannot_be_read_stops_a_sweep(store, monkeypatch):
    put(store)
    read = Path.read_text

    def refused(path, *args, **more):
        if path.suffix == ".json":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(WeightsError, match="so nothing is removed"):
        store.sweep()
    assert sha256(CONTENT) in store.blobs()


def test_strange_things_among_the_bytes_stop_nothing(store):
    put(store)
    (store.root / "blobs" / "lost+found").mkdir()
    blob = store.blob(sha256(CONTENT))
    blob.unlink()
    blob.mkdir()
    assert store.find("m-x2", "weights").trouble == "is no file of the store"
    assert store.sweep() == 0
    assert put(store).read_bytes() == CONTENT
    assert store.forget("m-x2")
    assert store.sweep() == len(CONTENT)


def test_one_role_is_dropped_and_the_others_stay(store):
    put(store)
    put(store, b"structure", each=asset("net", b"structure"))
    store.drop("m-x2", "net")
    assert [each.role for each in store.receipts("m-x2")] == ["weights"]
    assert not (store.folder("m-x2") / "m.net").is_symlink()
    store.drop("m-x2", "nothing")


KILLED = """
import sys; from pathlib import Path
sys.path[:0] = {paths!r}
from weights_kit import model, asset, receipt
from upx.assets.store import Store
store = Store(Path(sys.argv[1]))
for number in range(10**6):
    content = str(number % 3).encode() * 1000
    with store.making() as made:
        made.write_bytes(content)
        store.put(made, receipt(model(), asset("weights", content), content))
    if number == 20:
        print("going", flush=True)
    if number % 7 == 0:
        store.sweep()
"""


@pytest.mark.parametrize("round_", range(4))
def test_a_process_that_is_killed_leaves_a_whole_file_or_none(store, round_):
    code = KILLED.format(paths=[path for path in sys.path if path])
    children = [subprocess.Popen([sys.executable, "-c", code, store.root], stdout=subprocess.PIPE) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == b"going\n"
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()
    found = store.find("m-x2", "weights")
    assert sha256(store.blob(found.receipt.sha256).read_bytes()) == found.receipt.sha256
    # The link may be of the put that was cut short; then it is trouble that is said, and the next put mends it.
    assert found.trouble in {"", "is linked to another version"}
    put(store)
    assert store.find("m-x2", "weights").trouble == ""
