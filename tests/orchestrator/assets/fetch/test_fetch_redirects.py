from __future__ import annotations

import base64

import pytest
from fault_server import MIB, Content, FaultServer, Route
from fetch_kit import Fetcher, url_want

from upx.assets.fetch import Network, Want
from upx.assets.fetch.address import AddressError, follow, parse
from upx.assets.fetch.connection import goes_directly
from upx.config import Settings
from upx.errors import FetchError
from upx.specs import ManualSource, PackageSource, UrlSource

CONTENT = Content(MIB + 123, seed=1)
LOGIN = "Basic " + base64.b64encode(b"someone:pass word").decode()


def with_login(address: str) -> str:
    return address.replace("http://", "http://someone:pass%20word@")


# ------------------------------------------------------------------------------------- redirects


def test_a_redirect_on_the_same_host_keeps_the_login(server: FaultServer, fetcher: Fetcher) -> None:
    first = server.add("/first", Route(CONTENT, redirect="/second?key=1"))
    second = server.add("/second", Route(CONTENT, drops=[MIB]))
    fetcher.fetch(url_want(with_login(server.url("/first")), CONTENT))
    assert fetcher.has(CONTENT)
    assert {seen.headers["Authorization"] for seen in [*first.seen, *second.seen]} == {LOGIN}
    assert [seen.headers.get("Range") for seen in second.seen] == [None, f"bytes={MIB}-"]


def test_a_redirect_to_another_host_does_not_get_the_login(
    server: FaultServer, other: FaultServer, fetcher: Fetcher
) -> None:
    server.add("/first", Route(CONTENT, redirect=other.url("/second")))
    second = other.add("/second", Route(CONTENT))
    got = fetcher.fetch(url_want(with_login(server.url("/first")), CONTENT))
    assert got is not None
    assert "Authorization" not in second.seen[0].headers
    assert got.address == server.url("/first")


def test_a_redirect_that_leads_back_does_not_get_the_login_again(
    server: FaultServer, other: FaultServer, fetcher: Fetcher
) -> None:
    server.add("/first", Route(CONTENT, redirect=other.url("/second")))
    other.add("/second", Route(CONTENT, redirect=server.url("/third")))
    third = server.add("/third", Route(CONTENT))
    fetcher.fetch(url_want(with_login(server.url("/first")), CONTENT))
    assert "Authorization" not in third.seen[0].headers


def test_a_login_in_a_redirect_is_not_sent(server: FaultServer, fetcher: Fetcher) -> None:
    server.add("/first", Route(CONTENT, redirect=with_login(server.url("/second"))))
    second = server.add("/second", Route(CONTENT))
    fetcher.fetch(url_want(server.url("/first"), CONTENT))
    assert "Authorization" not in second.seen[0].headers


def test_redirects_end_after_ten(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add("/loop", Route(CONTENT, redirect="/loop"))
    with pytest.raises(FetchError, match="more than 10 redirects"):
        fetcher.fetch(url_want(server.url("/loop"), CONTENT))
    assert route.gets == 11


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x"])
def test_a_redirect_to_what_is_no_web_address_is_not_followed(
    server: FaultServer, fetcher: Fetcher, target: str
) -> None:
    server.add("/first", Route(CONTENT, redirect=target))
    with pytest.raises(FetchError, match="a redirect that is not followed"):
        fetcher.fetch(url_want(server.url("/first"), CONTENT))


def test_a_redirect_never_leaves_https() -> None:
    with pytest.raises(AddressError, match="leaves https"):
        follow(parse("https://example.org/a"), "http://example.org/a")
    assert follow(parse("http://example.org/a"), "https://example.org/b").scheme == "https"


def test_a_login_stays_with_scheme_host_and_port() -> None:
    here = parse("https://me:it@example.org/a")
    assert follow(here, "/b").login == "me:it"
    assert follow(here, "https://example.org:444/b").login == ""
    assert follow(here, "https://www.example.org/b").login == ""
    assert follow(parse("http://me:it@example.org/a"), "https://example.org/a").login == ""


# ------------------------------------------------------------------------------------- addresses


def test_an_address_is_shown_without_login_and_signature() -> None:
    address = parse("https://me:secret@example.org:8443/a b/%41?X-Signature=secret&id=7&token=secret#secret")
    assert address.shown == "https://example.org:8443/a%20b/%41?id=7"
    assert "secret" not in repr(address) + address.shown
    assert address.text == "https://example.org:8443/a%20b/%41?X-Signature=secret&id=7&token=secret"


@pytest.mark.parametrize(
    "text",
    ["", "file:///etc/passwd", "//host/x", "http://", "http:///x", "https://host:99999/", "http://a b/", "gopher://x/",
     "http://host/\r\nX-Evil: 1", "http://host/\x00", "http://[::1", "http://" + "a" * 20_000],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse(text)


def test_an_address_that_injects_headers_reaches_nobody(server: FaultServer, fetcher: Fetcher) -> None:
    with pytest.raises(FetchError, match="control characters"):
        fetcher.fetch(url_want(server.url("/x HTTP/1.1\r\nX-Evil: 1\r\n"), CONTENT))


def test_a_redirect_that_injects_headers_is_not_followed(server: FaultServer, fetcher: Fetcher) -> None:
    folded = b"HTTP/1.1 302 Found\r\nLocation: /a\r\n X-Evil: 1\r\nContent-Length: 0\r\n\r\n"
    server.add("/first", Route(CONTENT, raw=iter([folded])))
    with pytest.raises(FetchError, match="a redirect that is not followed"):
        fetcher.fetch(url_want(server.url("/first"), CONTENT))


def test_an_etag_that_injects_headers_is_not_sent_back(server: FaultServer, fetcher: Fetcher) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "a\r\n X-Evil: 1"\r\nContent-Length: %d\r\n\r\n' % CONTENT.size
    server.add("/x", Route(CONTENT, raw=iter([head, bytes(CONTENT.read(0, 1000))])))
    fetcher.on_report = lambda progress: server.routes.update({"/x": right}) if progress.state == "retrying" else None
    right = Route(CONTENT)
    fetcher.fetch(url_want(server.url("/x")))
    assert fetcher.has(CONTENT)
    assert "If-Range" not in right.seen[0].headers


def test_strange_names_reach_the_server_quoted(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add("/a%20%C3%A9%20b.bin", Route(CONTENT))
    fetcher.fetch(url_want(server.url("/a é b.bin"), CONTENT))
    assert route.gets == 1


def test_a_wants_key_is_safe_as_a_name_whatever_its_sources_say() -> None:
    want = Want("../../x", (UrlSource("http://x/../../\0/" + "y" * 999),))
    assert want.key.removeprefix("u-").isalnum()
    assert len(want.key) == 66
    assert want.key != Want("../../x", (UrlSource("http://y"),)).key


def test_a_want_says_nothing_of_its_sources() -> None:
    assert "secret" not in repr(Want("x", (UrlSource("http://me:secret@host/x"),)))


def test_errors_and_notes_never_hold_a_login(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add("/x", Route(CONTENT, statuses=[503] * 9))
    want = url_want(server.url("/x?sig=hidden").replace("http://", "http://me:hidden@"), CONTENT)
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(want)
    route.statuses, route.drops, route.dropper = [], [-5], lambda: 0
    with pytest.raises(FetchError):
        fetcher.fetch(want)
    written = "".join(path.read_text(errors="replace") for path in fetcher.parts.glob("*.json"))
    assert written
    assert "hidden" not in str(caught.value) + caught.value.hint + fetcher.notes + written + repr(fetcher.said)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b"HTTP/1.1 200 OK\r\n", *([b"X-A: b\r\n"] * 5000)], "no HTTP"),
        ([b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 100_000], "no HTTP"),
        ([b"SSH-2.0-OpenSSH\r\n"], "no HTTP"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 40_000, "without end"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", *([b"X-A: b\r\n"] * 200_000)], "without end"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"], "ended early|no HTTP"),
        ([b""], "no HTTP|broke"),
    ],
)
def test_an_answer_without_end_or_sense_is_given_up(
    server: FaultServer, fetcher: Fetcher, pieces: list[bytes], why: str
) -> None:
    fetcher.network = Network(timeout=5.0, tries=2, backoff=0.005)

    class Again:
        def __iter__(self):
            return iter(pieces)

    server.add("/x", Route(CONTENT, raw=Again()))  # pyright: ignore[reportArgumentType]
    with pytest.raises(FetchError, match=why):
        fetcher.fetch(url_want(server.url("/x"), CONTENT))
    assert not fetcher.taken.exists()


@pytest.mark.parametrize("sources", [(), (ManualSource("a page"), PackageSource("a", "b"))])
def test_a_want_that_nobody_offers_says_so(fetcher: Fetcher, sources: tuple) -> None:
    with pytest.raises(FetchError, match="nobody offers it") as caught:
        fetcher.fetch(Want("x", sources))
    assert ("get it from a page" in caught.value.hint) == bool(sources)
    assert "upx models import" in caught.value.hint


def test_a_file_that_no_source_gives_can_be_got_by_hand_where_the_manifest_says(
    server: FaultServer, fetcher: Fetcher
) -> None:
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url_want(server.url("/gone"), CONTENT, more=(ManualSource("http://example.org/form"),)))
    assert caught.value.hint.startswith("get it from http://example.org/form")


# ------------------------------------------------------------------------------------- proxies


def test_a_proxy_is_asked_for_the_whole_address(server: FaultServer, other: FaultServer, fetcher: Fetcher) -> None:
    proxied = other.add("http://files.invalid:8080/x", Route(CONTENT))
    fetcher.network = Network(proxies={"http": with_login(other.base)})
    fetcher.fetch(url_want("http://files.invalid:8080/x", CONTENT))
    assert fetcher.has(CONTENT)
    assert proxied.seen[0].headers["Proxy-Authorization"] == LOGIN
    assert proxied.seen[0].headers["Host"] == "files.invalid:8080"
    assert "Authorization" not in proxied.seen[0].headers


def test_a_host_in_no_proxy_is_reached_directly(server: FaultServer, other: FaultServer, fetcher: Fetcher) -> None:
    server.add("/x", Route(CONTENT))
    fetcher.network = Network(proxies={"all": other.base, "no": "example.org, 127.0.0.1"})
    fetcher.fetch(url_want(server.url("/x"), CONTENT))
    assert fetcher.has(CONTENT)


def test_a_proxy_of_another_kind_is_named(fetcher: Fetcher) -> None:
    fetcher.network = Network(proxies={"https": "socks5://me:hidden@127.0.0.1:1080"})
    with pytest.raises(FetchError, match="the proxy for https: the address is for 'socks5'") as caught:
        fetcher.fetch(url_want("https://example.org/x", CONTENT))
    assert "hidden" not in str(caught.value) + repr(fetcher.network)


def test_a_proxy_for_https_that_refuses_is_said(other: FaultServer, fetcher: Fetcher) -> None:
    fetcher.network = Network(proxies={"https": other.base}, backoff=0.005)
    with pytest.raises(FetchError, match="cannot reach 127"):
        fetcher.fetch(url_want("https://example.org/x", CONTENT))


@pytest.mark.parametrize(
    ("exceptions", "direct"),
    [("*", True), ("example.org", True), (".example.org", True), ("org", True), ("www.example.org:443", True),
     ("xample.org", False), ("", False), ("www.example.org:80", False), (" , ,", False)],
)  # fmt: skip
def test_no_proxy_names_hosts_and_the_domains_above_them(exceptions: str, direct: bool) -> None:  # noqa: FBT001
    assert goes_directly(parse("https://www.example.org/x"), exceptions) is direct


def test_the_network_is_read_from_the_settings() -> None:
    env = {"HOME": "/nowhere", "UPX_HOME": "/nowhere", "HTTPS_PROXY": "http://big", "https_proxy": "http://small",
           "NO_PROXY": "here", "SSL_CERT_FILE": "/ca.pem", "HF_ENDPOINT": "https://mirror.example"}  # fmt: skip
    network = Network.from_settings(Settings.from_env(env))
    assert network.proxies == {"https": "http://small", "no": "here"}
    assert network.hub.endpoint == "https://mirror.example"
    assert network.cert_file == "/ca.pem"
