"""Pull: what is missing comes, what is damaged is mended, what fails stops no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_server import Content, FaultServer, Route
from hub_server import HubServer
from shelf_kit import MANUAL, add_backend, asset_text, hub, make_shelf, url

from upx.assets.store import Store
from upx.errors import FetchError, LicenceError, WeightsError
from upx.models.checking import verify
from upx.models.importing import import_path
from upx.models.pulling import pull
from upx.models.selection import Selection, by_names

BIG, SMALL = Content(3 << 20, seed=1), Content(5000, seed=2)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def library():
    """The hub's library keeps its connections for as long as its process lives, which is its own way."""
    yield
    from huggingface_hub import utils

    utils.close_session()


@pytest.fixture
def server():
    with FaultServer() as running:
        running.add("/big", Route(BIG))
        running.add("/small", Route(SMALL))
        yield running


def pulled(shelf, *names, offline=False, **more):
    return pull(shelf, Selection(tuple(by_names(shelf, names or ["mine-x2"]))), offline=offline, **more)


def blob_of(shelf, content):
    return shelf.store.blob(content.sha256)


def spoil(path):
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_files_come_verified_with_receipts(home, server):
    add_backend(
        home, asset_text(BIG, url(server.url("/big"))), asset_text(SMALL, url(server.url("/small")), role="net")
    )
    heard = []
    shelf = make_shelf(home, report=heard.append)
    (done,) = pulled(shelf)
    assert (done.status, done.size) == ("pulled", BIG.size + SMALL.size)
    assert [each.status for each in verify(shelf, by_names(shelf, ["mine-x2"]))] == ["ok", "ok"]
    receipts = {each.role: each for each in shelf.store.receipts("mine-x2")}
    assert receipts["weights"].address == server.url("/big")
    assert receipts["weights"].verified == "manifest"
    assert receipts["weights"].licence == "MIT"
    assert {each.state for each in heard} >= {"fetching", "done"}


def test_what_is_here_is_not_fetched_again(home, server):
    add_backend(home, asset_text(BIG, url(server.url("/big"))))
    shelf = make_shelf(home)
    pulled(shelf)
    (again,) = pulled(shelf)
    assert again.status == "present"
    assert server.routes["/big"].gets == 1


def test_one_that_fails_stops_no_other(home, server):
    text = """
schema = 1
name = "mine"
default_model = "mine-x2"
""" + "".join(
        f'[[models]]\nname = "mine-x{scale}"\nscale = {scale}\n{asset_text(content, url(server.url(path)))}'
        for scale, content, path in ((2, SMALL, "/small"), (3, BIG, "/absent"))
    )
    add_backend(home, text=text)
    good, bad = pulled(make_shelf(home), "mine")
    assert (good.status, bad.status) == ("pulled", "failed")
    assert isinstance(bad.error, FetchError)
    assert "404" in str(bad.error)


def test_a_damaged_file_is_mended_from_the_network(home, server):
    add_backend(home, asset_text(BIG, url(server.url("/big"))))
    shelf = make_shelf(home)
    pulled(shelf)
    spoil(blob_of(shelf, BIG))
    assert [each.status for each in verify(shelf, by_names(shelf, ["mine-x2"]))] == ["damaged"]
    (done,) = pulled(shelf)
    assert done.status == "pulled"
    assert [each.status for each in verify(shelf, by_names(shelf, ["mine-x2"]))] == ["ok"]


def test_a_damaged_file_is_mended_offline_from_the_hub_s_cache(home, server):
    add_backend(home, asset_text(BIG, hub("people/net", "w.bin"), url(server.url("/big"))))
    shelf = make_shelf(home, HF_ENDPOINT=server.base)
    pulled(shelf)
    spoil(blob_of(shelf, BIG))
    commit = "b" * 40
    folder = home / "hf" / "hub" / "models--people--net"
    for path, content in (("refs/main", commit.encode()), (f"snapshots/{commit}/w.bin", BIG.bytes)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    before = len(server.routes["/big"].seen)
    (done,) = pulled(shelf, offline=True)
    assert (done.status, done.files) == ("pulled", ("weights.bin",))
    assert len(server.routes["/big"].seen) == before
    assert [each.status for each in verify(shelf, by_names(shelf, ["mine-x2"]))] == ["ok"]


def test_a_damaged_file_that_nothing_here_has_is_said_offline(home, server):
    add_backend(home, asset_text(BIG, url(server.url("/big"))))
    shelf = make_shelf(home)
    pulled(shelf)
    spoil(blob_of(shelf, BIG))
    (done,) = pulled(shelf, offline=True)
    assert done.status == "failed"
    assert "the network is off" in str(done.error)
    assert "upx models pull mine-x2" in done.error.hint


def test_a_wrong_file_is_never_kept(home, server):
    server.routes["/big"].wrong = -1
    add_backend(home, asset_text(BIG, url(server.url("/big"))))
    shelf = make_shelf(home)
    (done,) = pulled(shelf)
    assert done.status == "failed"
    assert server.routes["/big"].gets == 2
    assert shelf.store.blobs() == {}


def test_a_link_that_leads_elsewhere_is_mended_without_a_network(home, server, tmp_path):
    add_backend(home, asset_text(BIG, url(server.url("/big"))))
    shelf = make_shelf(home)
    pulled(shelf)
    path = shelf.store.folder("mine-x2") / "weights.bin"
    path.unlink()
    path.symlink_to(tmp_path)
    assert [each.status for each in verify(shelf, by_names(shelf, ["mine-x2"]))] == ["damaged"]
    (done,) = pulled(shelf, offline=True)
    assert done.status == "pulled"
    assert [each.status for each in verify(shelf, by_names(shelf, ["mine-x2"]))] == ["ok"]
    assert server.routes["/big"].gets == 1


def test_a_file_that_only_a_person_can_get_says_where_and_how(home):
    add_backend(home, asset_text(None, MANUAL))
    (done,) = pulled(make_shelf(home))
    assert isinstance(done.error, WeightsError)
    assert "the author's page" in done.error.hint
    assert "upx models import FILE --as mine-x2:weights" in done.error.hint


def test_a_licence_is_asked_for_before_anything_is_fetched(home, server):
    licence = 'licence = { name = "CC-BY-NC-4.0", noncommercial = true }\n'
    add_backend(home, asset_text(BIG, url(server.url("/big")), digest=licence + f'sha256 = "{BIG.sha256}"'))
    shelf = make_shelf(home)
    (done,) = pulled(shelf)
    assert isinstance(done.error, LicenceError)
    assert not server.routes["/big"].seen
    (done,) = pulled(shelf, accept_licence=True)
    assert done.status == "pulled"
    (receipt,) = shelf.store.receipts("mine-x2")
    assert receipt.licence == "CC-BY-NC-4.0"
    assert receipt.accepted.startswith("20")


def test_models_that_share_a_file_fetch_it_once(home, server):
    text = """
schema = 1
name = "mine"
default_model = "mine-x2"
[[models]]
name = "mine-x2"
scale = 2
[[models]]
name = "mine-x4"
scale = 4
""" + asset_text(None, url(server.url("/big")), table="assets", role="base")
    add_backend(home, text=text)
    shelf = make_shelf(home)
    assert [each.status for each in pulled(shelf, "mine")] == ["pulled", "pulled"]
    assert server.routes["/big"].gets == 1
    assert len(shelf.store.blobs()) == 1
    assert shelf.store.find("mine-x4", "base").path.read_bytes() == BIG.bytes


def test_a_shared_file_that_does_not_come_is_every_model_s_failure(home, server):
    text = (
        """
schema = 1
name = "mine"
default_model = "mine-x2"
"""
        + "".join(
            f'[[models]]\nname = "mine-x{scale}"\nscale = {scale}\n{asset_text(None, MANUAL, role="own")}'
            for scale in (2, 4)
        )
        + asset_text(None, url(server.url("/absent")), table="assets", role="base")
    )
    add_backend(home, text=text)
    done = pulled(make_shelf(home), "mine")
    assert [each.status for each in done] == ["failed", "failed"]
    assert all("2 files could not be brought: own.bin, base.bin" in str(each.error) for each in done)


def test_without_a_digest_what_came_is_what_is_verified_from_then_on(home, server):
    add_backend(home, asset_text(None, url(server.url("/big"))))
    shelf = make_shelf(home)
    pulled(shelf)
    (checked,) = verify(shelf, by_names(shelf, ["mine-x2"]))
    assert checked.status == "unverified"
    assert "none was published" in checked.message
    spoil(blob_of(shelf, BIG))
    assert [each.status for each in verify(shelf, by_names(shelf, ["mine-x2"]))] == ["damaged"]


def test_models_of_one_digest_each_have_their_own_name_licence_and_acceptance(home, server):
    bound = 'licence = { name = "CC-BY-NC-4.0", noncommercial = true }\n' + f'sha256 = "{SMALL.sha256}"'
    add_backend(home, asset_text(SMALL, url(server.url("/small")), role="weights"), name="one")
    both = (asset_text(SMALL, url(server.url("/small")), role=role, digest=bound) for role in ("net", "other"))
    add_backend(home, *both, asset_text(BIG, url(server.url("/big"))), name="two")
    shelf = make_shelf(home)
    assert [each.status for each in pulled(shelf, "one", "two", accept_licence=True)] == ["pulled", "pulled"]
    assert {each.status for each in verify(shelf, by_names(shelf, ["one", "two"]))} == {"ok"}
    receipts = {(each.model, each.role): each for name in shelf.store.models() for each in shelf.store.receipts(name)}
    assert receipts["two-x2", "net"].file == "net.bin"
    assert receipts["two-x2", "other"].file == "other.bin"
    assert (receipts["one-x2", "weights"].licence, receipts["one-x2", "weights"].accepted) == ("MIT", "")
    assert receipts["two-x2", "net"].licence == "CC-BY-NC-4.0"
    assert receipts["two-x2", "net"].accepted
    assert pulled(shelf, "two")[0].status == "present"


def test_what_a_person_imported_is_not_replaced_unasked(home, server):
    add_backend(home, asset_text(BIG, url(server.url("/big"))))
    shelf = make_shelf(home)
    own = home / "own.bin"
    own.write_bytes(b"mine")
    import_path(shelf, own, name="mine-x2:weights")
    spoil(shelf.store.blob(shelf.store.receipts("mine-x2")[0].sha256))
    (done,) = pulled(shelf)
    assert done.status == "failed"
    assert "upx models import FILE --as mine-x2:weights" in done.error.hint
    assert not server.routes["/big"].seen


def test_bytes_that_go_between_the_look_and_the_link_are_fetched_anew(home, server, monkeypatch):
    add_backend(home, asset_text(BIG, url(server.url("/big"))), name="one")
    add_backend(home, asset_text(BIG, url(server.url("/big"))), name="two")
    shelf = make_shelf(home)
    pulled(shelf, "one")
    link = Store.link

    def too_late(store, receipt):
        assert store.forget("one-x2")
        store.sweep()
        monkeypatch.setattr(Store, "link", link)
        return store.link(receipt)

    monkeypatch.setattr(Store, "link", too_late)
    (done,) = pulled(shelf, "two")
    assert done.status == "pulled"
    assert [each.status for each in verify(shelf, by_names(shelf, ["two"]))] == ["ok"]


def test_a_gated_repository_opens_with_a_token(home):
    with HubServer() as running:
        running.add("people/net", {"w.bin": BIG}, gated=True)
        add_backend(home, asset_text(BIG, hub("people/net", "w.bin")))
        (refused,) = pulled(make_shelf(home, HF_ENDPOINT=running.base))
        assert refused.error.code == "Access"
        assert "people/net" in refused.error.hint
        shelf = make_shelf(home, HF_ENDPOINT=running.base, HF_TOKEN=running.token)
        (done,) = pulled(shelf)
        assert done.status == "pulled"
        (receipt,) = shelf.store.receipts("mine-x2")
        assert len(receipt.revision) == 40
        assert running.token not in Path(shelf.store.root, "receipts", "mine-x2", "weights.json").read_text()


def test_an_address_with_a_login_leaves_no_trace_of_it(home, server):
    address = server.url("/big").replace("//", "//user:geheim@") + "?signature=geheim"
    server.add("/big?signature=geheim", server.routes["/big"])
    add_backend(home, asset_text(BIG, url(address)))
    shelf = make_shelf(home)
    (done,) = pulled(shelf)
    assert done.status == "pulled"
    assert not [path for path in shelf.store.root.rglob("*.json") if "geheim" in path.read_text()]
