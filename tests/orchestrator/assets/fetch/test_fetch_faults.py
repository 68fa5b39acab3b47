from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import random
import shutil
import time
from email.utils import formatdate

import pytest
from fault_server import MIB, Content, FaultServer, Literal, Route
from fetch_kit import Fetcher, url_want

from upx.assets.fetch import Network
from upx.assets.fetch.judge import MAX_PAUSE_S
from upx.errors import AccessError, CancelledError, FetchError, StoreFullError
from upx.specs import UrlSource

CONTENT = Content(3 * MIB + 123, seed=1)
PATH = "/file.bin"


# ------------------------------------------------------------------------------------- wrong bytes


def test_wrong_bytes_are_fetched_exactly_once_more(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, wrong=1))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert route.gets == 2
    assert "wrong" in fetcher.notes


def test_drops_are_survived_while_wrong_bytes_are_fetched_once_more(server: FaultServer, fetcher: Fetcher) -> None:
    rng = random.Random(5)
    route = server.add(PATH, Route(CONTENT, wrong=1, dropper=lambda: rng.randrange(MIB // 4, MIB)))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert [seen.status for seen in route.seen].count(200) == 2


def test_wrong_bytes_twice_send_the_download_to_the_next_source(
    server: FaultServer, other: FaultServer, fetcher: Fetcher
) -> None:
    wrong = server.add(PATH, Route(CONTENT, wrong=-1))
    right = other.add(PATH, Route(CONTENT))
    got = fetcher.fetch(url_want(server.url(PATH), CONTENT, more=(UrlSource(other.url(PATH)),)))
    assert got is not None
    assert got.source == UrlSource(other.url(PATH))
    assert fetcher.has(CONTENT)
    assert (wrong.gets, right.gets) == (2, 1)


def test_wrong_bytes_for_ever_are_never_accepted(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, wrong=-1, drops=[MIB]))
    with pytest.raises(FetchError, match="wrong bytes twice"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert not fetcher.taken.exists()
    assert route.wrong_sent == 2
    assert fetcher.states[-1] == "failed"


# ------------------------------------------------------------------------------------- lengths


def test_a_length_that_is_too_long_is_a_drop_and_given_up(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT, length=CONTENT.size + 10))
    with pytest.raises(FetchError, match="announces two lengths"):
        fetcher.fetch(url_want(server.url(PATH), None))
    assert not fetcher.taken.exists()


def test_a_length_that_is_too_short_is_noticed_by_the_hash(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT, length=CONTENT.size - 10))
    with pytest.raises(FetchError, match="wrong bytes twice"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT, size=False))


def test_a_length_that_is_not_the_known_size_ends_its_source_early(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT))
    want = dataclasses.replace(url_want(server.url(PATH), CONTENT), size=CONTENT.size - 1)
    with pytest.raises(FetchError, match=f"announces {CONTENT.size} bytes, and {CONTENT.size - 1} are expected"):
        fetcher.fetch(want)
    assert route.gets == 1


def test_more_bytes_than_the_known_size_are_not_written(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT, length="chunked"))
    want = dataclasses.replace(url_want(server.url(PATH), CONTENT), size=MIB)
    with pytest.raises(FetchError, match=f"sends more than the {MIB} bytes"):
        fetcher.fetch(want)
    assert fetcher.part(want).stat().st_size <= MIB


@pytest.mark.parametrize("known", [True, False])
def test_a_chunked_answer_needs_no_length(server: FaultServer, fetcher: Fetcher, known: bool) -> None:  # noqa: FBT001
    server.add(PATH, Route(CONTENT, length="chunked", drops=[MIB]))
    fetcher.fetch(url_want(server.url(PATH), CONTENT if known else None))
    assert fetcher.has(CONTENT)


def test_a_closed_connection_ends_a_file_whose_size_is_known(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT, length="close", drops=[MIB]))
    want = dataclasses.replace(url_want(server.url(PATH)), size=CONTENT.size)
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)


def test_a_closed_connection_ends_a_file_whose_hash_is_right(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT, length="close"))
    fetcher.fetch(url_want(server.url(PATH), CONTENT, size=False))
    assert fetcher.has(CONTENT)


def test_a_closed_connection_proves_nothing_about_an_unknown_file(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT, length="close"))
    with pytest.raises(FetchError, match="cannot tell whether it is complete"):
        fetcher.fetch(url_want(server.url(PATH)))


# ------------------------------------------------------------------------------------- what comes instead


@pytest.mark.parametrize("status", [200, 206])
def test_a_web_page_is_no_file(server: FaultServer, fetcher: Fetcher, status: int) -> None:
    server.add(PATH, Route(CONTENT, content_type="text/html; charset=utf-8"))
    want = url_want(server.url(PATH), CONTENT)
    if status == 206:
        fetcher.leave(want, CONTENT.bytes[:MIB])
    with pytest.raises(FetchError, match="web page instead of the file") as caught:
        fetcher.fetch(want)
    assert "upx models import" in caught.value.hint


def test_a_page_that_is_asked_for_is_a_file(server: FaultServer, fetcher: Fetcher) -> None:
    page = Literal(b"<html></html>")
    server.add("/page.html", Route(page, content_type="text/html"))
    fetcher.fetch(url_want(server.url("/page.html")))
    assert fetcher.has(page)


def test_an_encoded_answer_is_refused(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(FetchError, match="encoded"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert route.seen[0].headers["Accept-Encoding"] == "identity"
    assert route.seen[0].headers["User-Agent"].startswith("upx/")


# ------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_an_access_error(server: FaultServer, fetcher: Fetcher, status: int) -> None:
    server.add(PATH, Route(CONTENT, statuses=[status]))
    with pytest.raises(AccessError, match=f"refuses access \\({status}\\)") as caught:
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert "the address refuses" in caught.value.hint


@pytest.mark.parametrize("status", [404, 410, 400, 451, 418, 206, 204, 304])
def test_what_will_not_change_sends_the_download_to_the_next_source(
    server: FaultServer, other: FaultServer, fetcher: Fetcher, status: int
) -> None:
    route = server.add(PATH, Route(CONTENT, statuses=[status]))
    other.add(PATH, Route(CONTENT))
    fetcher.fetch(url_want(server.url(PATH), CONTENT, more=(UrlSource(other.url(PATH)),)))
    assert fetcher.has(CONTENT)
    assert route.gets == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: FaultServer, fetcher: Fetcher, status: int) -> None:
    route = server.add(PATH, Route(CONTENT, statuses=[status, status]))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert route.gets == 3
    assert f"answers {status}" in fetcher.notes


def test_a_server_that_never_recovers_is_given_up(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, statuses=[503] * 20))
    with pytest.raises(FetchError, match="answers 503, 4 times in a row"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert route.gets == fetcher.network.tries


@pytest.mark.parametrize("when", ["1", "date"])
def test_a_server_that_asks_for_patience_gets_it(server: FaultServer, fetcher: Fetcher, when: str) -> None:
    wait = when if when == "1" else formatdate(time.time() + 2, usegmt=True)
    route = server.add(PATH, Route(CONTENT, statuses=[429], headers={"Retry-After": wait}))
    began = time.monotonic()
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert route.gets == 2
    assert 0.9 <= time.monotonic() - began < 3


def test_a_cancel_ends_the_wait_that_a_server_asked_for(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT, statuses=[429], headers={"Retry-After": "3600"}))
    fetcher.on_report = lambda progress: fetcher.cancel.set() if progress.state == "retrying" else None
    began = time.monotonic()
    with pytest.raises(CancelledError):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert time.monotonic() - began < 1
    assert MAX_PAUSE_S == 60


def test_all_sources_are_named_with_their_reasons_and_the_most_telling_decides(
    server: FaultServer, other: FaultServer, fetcher: Fetcher
) -> None:
    server.add(PATH, Route(CONTENT, statuses=[404]))
    other.add(PATH, Route(CONTENT, statuses=[403]))
    nobody = UrlSource("http://127.0.0.1:1/file.bin")
    want = url_want(server.url(PATH), CONTENT, more=(UrlSource(other.url(PATH)), nobody))
    with pytest.raises(AccessError) as caught:
        fetcher.fetch(want)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model: file.bin: ")
    assert f"127.0.0.1:{server.port}: has no such file (404)" in message
    assert f"127.0.0.1:{other.port}: refuses access (403)" in message.replace("it refuses", "refuses")
    assert "127.0.0.1:1: no network, or cannot reach 127.0.0.1:1: connection refused" in message


# ------------------------------------------------------------------------------------- silence


def test_a_stalled_connection_is_continued_on_another(server: FaultServer, fetcher: Fetcher) -> None:
    fetcher.network = dataclasses.replace(fetcher.network, timeout=0.4)
    route = server.add(PATH, Route(CONTENT, stalls=[MIB]))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert [seen.status for seen in route.seen] == [200, 206]
    assert "nothing came for 0.4 s" in fetcher.notes


def test_a_cancel_ends_a_stall_at_once(server: FaultServer, fetcher: Fetcher) -> None:
    fetcher.network = Network(timeout=30.0)
    server.add(PATH, Route(CONTENT, stalls=[MIB], on_piece=lambda sent: sent >= MIB and fetcher.cancel.set()))
    began = time.monotonic()
    with pytest.raises(CancelledError):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert time.monotonic() - began < 1


def test_a_trickle_is_no_progress_and_is_given_up(server: FaultServer, fetcher: Fetcher) -> None:
    fetcher.network = Network(timeout=0.15, tries=3, backoff=0.005)
    route = server.add(PATH, Route(CONTENT, trickle=(1, 0.02)))
    with pytest.raises(FetchError, match="less than 1024 bytes a second"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert route.gets == 3
    assert route.sent < 100


def test_a_machine_without_a_network_says_so_in_seconds(fetcher: Fetcher) -> None:
    fetcher.network = Network()
    began = time.monotonic()
    with pytest.raises(FetchError, match="no network, or cannot reach") as caught:
        fetcher.fetch(url_want("http://127.0.0.1:1/file.bin", CONTENT))
    assert time.monotonic() - began < 4
    assert "upx models import" in caught.value.hint
    assert "--offline" in caught.value.hint


def test_a_host_that_does_not_exist_says_so(fetcher: Fetcher, monkeypatch) -> None:
    import socket

    asked = []

    def unknown(*_args: object, **_more: object) -> list[object]:
        asked.append(1)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match=r"cannot reach nowhere\.invalid: no such host, or no network"):
        fetcher.fetch(url_want("https://nowhere.invalid/file.bin", CONTENT))
    assert len(asked) == 3


def test_a_host_that_does_not_answer_is_left_behind(fetcher: Fetcher, monkeypatch) -> None:
    import http.client
    import threading

    release = threading.Event()
    monkeypatch.setattr(http.client.HTTPConnection, "connect", lambda _self: release.wait(10))
    fetcher.network = Network(timeout=0.2, backoff=0.005)
    began = time.monotonic()
    with pytest.raises(FetchError, match="no answer"):
        fetcher.fetch(url_want("http://127.0.0.1:1/file.bin", CONTENT))
    assert time.monotonic() - began < 3
    release.set()


# ------------------------------------------------------------------------------------- the disk


def test_too_little_space_is_said_before_anything_is_written(
    server: FaultServer, fetcher: Fetcher, monkeypatch
) -> None:
    route = server.add(PATH, Route(CONTENT))
    usage = shutil.disk_usage(fetcher.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=64 * MIB + CONTENT.size - 1))
    with pytest.raises(StoreFullError, match=r"70\.4 MB are needed and 70\.4 MB are free|needed and .* free"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert route.gets == 0


def test_space_is_asked_for_by_the_estimate_where_no_size_is_known(
    server: FaultServer, fetcher: Fetcher, monkeypatch
) -> None:
    server.add(PATH, Route(CONTENT))
    usage = shutil.disk_usage(fetcher.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=65 * MIB))
    with pytest.raises(StoreFullError):
        fetcher.fetch(dataclasses.replace(url_want(server.url(PATH)), about=2 * MIB))


def test_space_is_looked_at_again_where_no_length_is_known(server: FaultServer, fetcher: Fetcher, monkeypatch) -> None:
    monkeypatch.setattr("upx.assets.fetch.part.SPACE_STEP", MIB)
    usage = shutil.disk_usage(fetcher.folder)
    free = itertools.chain([100 * MIB] * 3, itertools.repeat(MIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=next(free)))
    server.add(PATH, Route(CONTENT, length="chunked"))
    want = url_want(server.url(PATH))
    with pytest.raises(StoreFullError):
        fetcher.fetch(want)
    assert MIB <= fetcher.part(want).stat().st_size < CONTENT.size


def test_a_length_that_does_not_fit_is_noticed_when_it_is_announced(
    server: FaultServer, fetcher: Fetcher, monkeypatch
) -> None:
    route = server.add(PATH, Route(CONTENT))
    usage = shutil.disk_usage(fetcher.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=66 * MIB))
    want = url_want(server.url(PATH))
    with pytest.raises(StoreFullError):
        fetcher.fetch(want)
    assert route.gets == 1
    assert not fetcher.part(want).stat().st_size


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_keeps_the_part(server: FaultServer, fetcher: Fetcher, monkeypatch, code: int) -> None:
    server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT)
    write, left = os.write, [MIB]

    def full(fd: int, data: memoryview) -> int:
        if isinstance(data, memoryview) and left[0] <= 0:
            raise OSError(code, os.strerror(code))
        count = write(fd, data[: left[0]] if isinstance(data, memoryview) else data)
        left[0] -= count if isinstance(data, memoryview) else 0
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreFullError, match="the disk was full"):
            fetcher.fetch(want)
    assert fetcher.part(want).stat().st_size == MIB
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)


def test_a_folder_that_cannot_be_written_is_named(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT)
    fetcher.part(want).mkdir(parents=True)
    with pytest.raises(FetchError, match="cannot be written") as caught:
        fetcher.fetch(want)
    assert str(fetcher.parts) in caught.value.hint
