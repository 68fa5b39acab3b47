from __future__ import annotations

import importlib.util
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fault_server import MIB, Content, Literal, Route
from fetch_kit import QUICK, Fetcher
from hub_server import COMMIT, HubServer

from upx.assets.fetch import Network, Want
from upx.config import Hub
from upx.errors import AccessError, CancelledError, FetchError
from upx.specs import HubSource, UrlSource

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = Content(2 * MIB + 5, seed=4)
SOURCE = HubSource("people/model", "weights/model x.bin")
WANT = Want("span-x4: model x.bin", (SOURCE,))


@pytest.fixture(params=["library", "plain"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """All of it with the hub's own library, and without."""
    if request.param == "plain":
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else find(name))
        yield "plain"
        return
    utils = pytest.importorskip("huggingface_hub.utils")
    yield "library"
    utils.close_session()


@pytest.fixture
def at_hub(hub: HubServer, fetcher: Fetcher) -> Fetcher:
    fetcher.network = replace(QUICK, hub=Hub(endpoint=hub.base))
    return fetcher


def test_a_large_file_comes_from_the_cdn_verified_by_the_hub(hub: HubServer, at_hub: Fetcher) -> None:
    repo = hub.add("people/model", {SOURCE.path: CONTENT})
    got = at_hub.fetch(WANT)
    assert got is not None
    assert (got.verified_by, got.sha256, got.revision) == ("hub", CONTENT.sha256, COMMIT)
    assert got.address == f"{hub.base}/people/model/resolve/{COMMIT}/weights/model%20x.bin"
    assert at_hub.has(CONTENT)
    assert repo.routes[SOURCE.path].sent == CONTENT.size
    assert [seen.method for seen in hub.seen] == ["HEAD", "GET"]


def test_a_small_file_comes_from_the_hub_and_nobody_vouches_for_it(hub: HubServer, at_hub: Fetcher) -> None:
    hub.add("people/model", {SOURCE.path: CONTENT}, small=True)
    got = at_hub.fetch(WANT)
    assert got is not None
    assert (got.verified_by, got.revision) == ("", COMMIT)
    assert at_hub.has(CONTENT)


def test_the_manifests_hash_goes_before_the_hubs(hub: HubServer, at_hub: Fetcher) -> None:
    hub.add("people/model", {SOURCE.path: CONTENT})
    got = at_hub.fetch(replace(WANT, sha256=CONTENT.sha256, size=CONTENT.size))
    assert got is not None
    assert got.verified_by == "manifest"


def test_another_file_at_the_hub_is_noticed_before_it_is_fetched(hub: HubServer, at_hub: Fetcher) -> None:
    repo = hub.add("people/model", {SOURCE.path: CONTENT})
    with pytest.raises(FetchError, match="has another file"):
        at_hub.fetch(replace(WANT, sha256="0" * 64))
    assert repo.routes[SOURCE.path].gets == 0


def test_wrong_bytes_from_the_cdn_are_noticed_by_the_hubs_hash(hub: HubServer, at_hub: Fetcher) -> None:
    repo = hub.add("people/model", {SOURCE.path: CONTENT})
    repo.routes[SOURCE.path].wrong = 1
    at_hub.fetch(WANT)
    assert at_hub.has(CONTENT)
    assert repo.routes[SOURCE.path].gets == 2


def test_a_drop_at_the_cdn_is_continued_with_a_new_signature(hub: HubServer, at_hub: Fetcher) -> None:
    repo = hub.add("people/model", {SOURCE.path: CONTENT})
    repo.routes[SOURCE.path].drops = [MIB]
    at_hub.fetch(WANT)
    assert at_hub.has(CONTENT)
    assert [seen.status for seen in repo.routes[SOURCE.path].seen] == [200, 206]
    assert [seen.method for seen in hub.seen] == ["HEAD", "GET", "GET"]


def test_a_part_of_the_same_state_of_the_hub_is_continued_in_a_later_run(hub: HubServer, at_hub: Fetcher) -> None:
    repo = hub.add("people/model", {SOURCE.path: CONTENT})
    at_hub.leave(WANT, CONTENT.bytes[:MIB], sha256=CONTENT.sha256)
    at_hub.fetch(WANT)
    assert at_hub.has(CONTENT)
    assert repo.routes[SOURCE.path].sent == CONTENT.size - MIB


@pytest.mark.parametrize("where", ["settings", "file"])
def test_a_gated_file_is_given_for_a_token_that_the_cdn_never_sees(hub: HubServer, at_hub: Fetcher, where: str) -> None:
    repo = hub.add("people/model", {SOURCE.path: CONTENT}, gated=True)
    if where == "settings":
        with_token = Hub(endpoint=hub.base, token=hub.token)
    else:
        file = at_hub.folder / "token"
        file.write_text(f"{hub.token}\n")
        with_token = Hub(endpoint=hub.base, token_file=file)
    at_hub.network = replace(at_hub.network, hub=with_token)
    at_hub.fetch(WANT)
    assert at_hub.has(CONTENT)
    assert "Authorization" not in repo.routes[SOURCE.path].seen[0].headers


def test_a_gated_file_without_a_token_says_what_to_accept_and_where(hub: HubServer, at_hub: Fetcher) -> None:
    hub.add("people/model", {SOURCE.path: CONTENT}, gated=True)
    with pytest.raises(AccessError, match=r"span-x4: model x\.bin: .*wants to be asked first") as caught:
        at_hub.fetch(WANT)
    assert f"accept the conditions on {hub.base}/people/model" in caught.value.hint
    assert "set HF_TOKEN or log in" in caught.value.hint


def test_a_token_that_is_refused_is_an_access_error_without_the_token(hub: HubServer, at_hub: Fetcher) -> None:
    hub.add("people/model", {SOURCE.path: CONTENT}, gated=True)
    at_hub.network = replace(at_hub.network, hub=Hub(endpoint=hub.base, token="hf_wrong"))  # noqa: S106
    with pytest.raises(AccessError) as caught:
        at_hub.fetch(WANT)
    text = str(caught.value) + caught.value.hint + at_hub.notes + repr(at_hub.network)
    assert "hf_wrong" not in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["hf_right\r\nX-Evil: 1", "hf right", "hf_ü"])
def test_a_token_that_injects_headers_is_not_sent(hub: HubServer, at_hub: Fetcher, text: str) -> None:
    at_hub.network = replace(at_hub.network, hub=Hub(endpoint=hub.base, token=text))
    with pytest.raises(AccessError, match="no token has"):
        at_hub.fetch(WANT)
    assert hub.seen == []


def test_a_missing_repository_is_not_told_from_a_hidden_one(hub: HubServer, at_hub: Fetcher) -> None:
    with pytest.raises(AccessError, match="no such repository, or none for this token"):
        at_hub.fetch(WANT)


def test_a_missing_revision_is_named(hub: HubServer, at_hub: Fetcher) -> None:
    hub.add("people/model", {SOURCE.path: CONTENT})
    with pytest.raises(FetchError, match="has no revision 'v9'"):
        at_hub.fetch(Want("x", (replace(SOURCE, revision="v9"),)))


def test_a_missing_file_sends_the_download_to_the_next_source(hub: HubServer, at_hub: Fetcher) -> None:
    hub.add("people/model", {"other.bin": CONTENT})
    with pytest.raises(FetchError, match=r"has no file 'weights/model x\.bin'"):
        at_hub.fetch(WANT)
    hub.cdn.add("/mirror.bin", Route(CONTENT))
    got = at_hub.fetch(replace(WANT, sources=(SOURCE, UrlSource(hub.cdn.url("/mirror.bin")))))
    assert got is not None
    assert got.source == UrlSource(hub.cdn.url("/mirror.bin"))


def test_a_hub_that_fails_for_a_moment_is_asked_again(hub: HubServer, at_hub: Fetcher) -> None:
    hub.add("people/model", {SOURCE.path: CONTENT})
    hub.head_statuses = [503, 429]
    at_hub.fetch(WANT)
    assert at_hub.has(CONTENT)


def test_a_hub_that_cannot_be_reached_says_so(at_hub: Fetcher) -> None:
    at_hub.network = replace(at_hub.network, hub=Hub(endpoint="http://127.0.0.1:1"))
    with pytest.raises(FetchError, match=r"no network, or cannot reach 127\.0\.0\.1:1") as caught:
        at_hub.fetch(WANT)
    assert "--offline" in caught.value.hint


def test_a_hub_that_is_switched_off_is_not_asked(hub: HubServer, at_hub: Fetcher) -> None:
    at_hub.network = replace(at_hub.network, hub=Hub(endpoint=hub.base, offline=True))
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE"):
        at_hub.fetch(WANT)
    assert hub.seen == []


def test_a_cancel_ends_the_wait_for_a_hub_that_is_silent(hub: HubServer, at_hub: Fetcher) -> None:
    at_hub.network = replace(at_hub.network, timeout=20.0)
    threading.Timer(0.2, at_hub.cancel.set).start()
    hub.hub.lookup = lambda _seen: Route(CONTENT, raw=iter_slowly())
    began = time.monotonic()
    with pytest.raises(CancelledError):
        at_hub.fetch(WANT)
    assert time.monotonic() - began < 3


def iter_slowly() -> Iterator[bytes]:
    time.sleep(0.6)
    yield b""


def test_a_name_that_the_hub_does_not_allow_ends_its_source(hub: HubServer, at_hub: Fetcher) -> None:
    with pytest.raises(FetchError, match="cannot be fetched"):
        at_hub.fetch(Want("x", (HubSource("a/b/c/../d", "x"),)))


def test_a_page_at_the_hubs_address_is_no_file(hub: HubServer, at_hub: Fetcher) -> None:
    repo = hub.add("people/model", {SOURCE.path: Literal(b"<html>")}, small=True)
    repo.routes[SOURCE.path].content_type = "text/html"
    with pytest.raises(FetchError, match="web page"):
        at_hub.fetch(WANT)


def test_an_endpoint_that_is_no_address_is_named(at_hub: Fetcher) -> None:
    at_hub.network = Network(hub=Hub(endpoint="ftp://hub.example"), backoff=0.005, tries=2)
    with pytest.raises(FetchError, match="HF_ENDPOINT"):
        at_hub.fetch(WANT)
