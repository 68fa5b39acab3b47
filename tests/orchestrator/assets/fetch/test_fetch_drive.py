from __future__ import annotations

import base64
import importlib.util
from dataclasses import replace

import pytest
from fault_server import MIB, Content, FaultServer, Literal, Route
from fetch_kit import QUICK, Fetcher

from upx.assets.fetch import Want
from upx.errors import AccessError, FetchError
from upx.specs import DriveSource, OneDriveSource

CONTENT = Content(MIB + 5, seed=6)
DRIVE = Want("model: file.bin", (DriveSource("1aB_c-D"),))
ASKED = "/download?id=1aB_c-D&export=download&confirm=t"
# On one line, as Drive sends it: gdown reads line by line.
FORM = (
    "<!DOCTYPE html><html><body><p>Google Drive can't scan this file for viruses.</p>"
    '<form id="download-form" action="{action}" method="get"><input type="hidden" name="id" value="1aB_c-D">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="77-88">'
    "</form></body></html>"
)


def page(text: str, status: int = 200) -> Route:
    return Route(
        Literal(text.encode()), content_type="text/html; charset=utf-8", statuses=[] if status == 200 else [status]
    )


@pytest.fixture
def at_drive(server: FaultServer, fetcher: Fetcher) -> Fetcher:
    fetcher.network = replace(QUICK, drive_base=server.base, onedrive_base=server.url("/v1.0"))
    return fetcher


@pytest.fixture
def without_gdown(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gdown" else find(name))


def test_a_file_of_google_drive_is_fetched_by_its_id(server: FaultServer, at_drive: Fetcher) -> None:
    route = server.add(ASKED, Route(CONTENT, drops=[MIB // 2]))
    got = at_drive.fetch(replace(DRIVE, sha256=CONTENT.sha256))
    assert got is not None
    assert got.address == server.url(ASKED)
    assert at_drive.has(CONTENT)
    assert [seen.status for seen in route.seen] == [200, 206]


def test_a_page_that_wants_a_confirmation_is_answered_by_gdown(server: FaultServer, at_drive: Fetcher) -> None:
    pytest.importorskip("gdown")
    server.add(ASKED, page(FORM.format(action=server.url("/confirmed"))))
    confirmed = server.add("/confirmed", Route(CONTENT, drops=[MIB // 2]))
    got = at_drive.fetch(replace(DRIVE, sha256=CONTENT.sha256))
    assert got is not None
    assert got.revision == ""
    assert at_drive.has(CONTENT)
    assert confirmed.seen[0].path == "/confirmed?id=1aB_c-D&confirm=t&uuid=77-88"
    assert [seen.status for seen in confirmed.seen] == [200, 206]


def test_a_page_behind_the_page_ends_the_source(server: FaultServer, at_drive: Fetcher) -> None:
    pytest.importorskip("gdown")
    server.add(ASKED, page(FORM.format(action=server.url("/confirmed"))))
    server.add("/confirmed", page(FORM.format(action=server.url("/confirmed"))))
    with pytest.raises(FetchError, match="web page instead of the file"):
        at_drive.fetch(DRIVE)


@pytest.mark.usefixtures("without_gdown")
def test_without_gdown_the_page_is_named_with_the_way_out(server: FaultServer, at_drive: Fetcher) -> None:
    server.add(ASKED, page(FORM.format(action=server.url("/confirmed"))))
    with pytest.raises(FetchError, match="Google Drive asks a question") as caught:
        at_drive.fetch(DRIVE)
    assert "gdown" in caught.value.hint
    assert "upx models import" in caught.value.hint


def test_a_quota_that_is_spent_is_named(server: FaultServer, at_drive: Fetcher) -> None:
    server.add(ASKED, page("<html><title>Google Drive - Quota exceeded</title></html>"))
    with pytest.raises(FetchError, match="too many have fetched it") as caught:
        at_drive.fetch(DRIVE)
    assert "try again in a day" in caught.value.hint


def test_a_login_page_is_an_access_error(server: FaultServer, at_drive: Fetcher) -> None:
    server.add(ASKED, page('<html><a href="https://accounts.google.com/ServiceLogin">Sign in</a></html>'))
    with pytest.raises(AccessError, match="wants a login"):
        at_drive.fetch(DRIVE)


@pytest.mark.parametrize("action", ["file:///etc/passwd", "javascript:1"])
def test_a_page_that_leads_nowhere_is_not_followed(server: FaultServer, at_drive: Fetcher, action: str) -> None:
    pytest.importorskip("gdown")
    server.add(ASKED, page(FORM.format(action=action)))
    with pytest.raises(FetchError, match="leads nowhere"):
        at_drive.fetch(DRIVE)


def test_a_page_without_an_address_says_so(server: FaultServer, at_drive: Fetcher) -> None:
    pytest.importorskip("gdown")
    server.add(ASKED, page("<html>no form here</html>"))
    with pytest.raises(FetchError, match="holds no address"):
        at_drive.fetch(DRIVE)


def test_an_id_cannot_leave_its_place_in_the_address(server: FaultServer, at_drive: Fetcher) -> None:
    route = server.add("/download", Route(CONTENT))
    at_drive.fetch(Want("x", (DriveSource("a&b=c/../#d e"),)))
    assert route.seen[0].path == "/download?id=a%26b%3Dc%2F..%2F%23d%20e&export=download&confirm=t"


def test_a_share_of_onedrive_is_fetched_by_its_link(server: FaultServer, at_drive: Fetcher) -> None:
    link = "https://1drv.example/u/s!AbC?e=1"
    share = base64.urlsafe_b64encode(link.encode()).decode().rstrip("=")
    server.add(f"/v1.0/shares/u!{share}/driveItem/content", Route(CONTENT))
    assert at_drive.fetch(Want("x", (OneDriveSource(link),))) is not None
    assert at_drive.has(CONTENT)
