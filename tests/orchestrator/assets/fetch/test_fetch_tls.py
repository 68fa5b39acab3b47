from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trustme
from fault_server import MIB, Content, FaultServer, Route
from fetch_kit import QUICK, Fetcher, url_want

from upx.errors import CancelledError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = Content(3 * MIB + 7, seed=11)
PATH = "/file.bin"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key in the same file, and beside it the authority that signed it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "cert.pem"))
    return folder / "cert.pem"


@pytest.fixture
def secure(certificate: Path) -> Iterator[FaultServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FaultServer(tls=context) as server:
        yield server


@pytest.fixture
def trusting(fetcher: Fetcher, certificate: Path) -> Fetcher:
    fetcher.network = replace(QUICK, cert_file=str(certificate.with_name("authority.pem")))
    return fetcher


def test_https_is_fetched_continued_and_verified(secure: FaultServer, trusting: Fetcher) -> None:
    route = secure.add(PATH, Route(CONTENT, drops=[MIB, MIB]))
    trusting.fetch(url_want(secure.url(PATH), CONTENT))
    assert trusting.has(CONTENT)
    assert [seen.status for seen in route.seen] == [200, 206, 206]
    assert route.sent == CONTENT.size


def test_a_stall_over_https_is_continued(secure: FaultServer, trusting: Fetcher) -> None:
    trusting.network = replace(trusting.network, timeout=0.5)
    secure.add(PATH, Route(CONTENT, stalls=[MIB]))
    trusting.fetch(url_want(secure.url(PATH), CONTENT))
    assert trusting.has(CONTENT)
    assert "nothing came" in trusting.notes


def test_a_cancel_ends_a_stall_over_https(secure: FaultServer, trusting: Fetcher) -> None:
    secure.add(PATH, Route(CONTENT, stalls=[MIB], on_piece=lambda sent: sent >= MIB and trusting.cancel.set()))
    with pytest.raises(CancelledError):
        trusting.fetch(url_want(secure.url(PATH), CONTENT))


def test_a_certificate_that_nobody_vouches_for_is_refused(secure: FaultServer, fetcher: Fetcher) -> None:
    route = secure.add(PATH, Route(CONTENT))
    with pytest.raises(FetchError, match=r"certificate of 127.* cannot be verified") as caught:
        fetcher.fetch(url_want(secure.url(PATH), CONTENT))
    assert "SSL_CERT_FILE" in caught.value.hint
    assert route.gets == 0


def test_a_redirect_from_https_to_http_is_not_followed(
    secure: FaultServer, server: FaultServer, trusting: Fetcher
) -> None:
    plain = server.add(PATH, Route(CONTENT))
    secure.add(PATH, Route(CONTENT, redirect=server.url(PATH)))
    with pytest.raises(FetchError, match="a redirect leaves https for http"):
        trusting.fetch(url_want(secure.url(PATH), CONTENT))
    assert plain.gets == 0
