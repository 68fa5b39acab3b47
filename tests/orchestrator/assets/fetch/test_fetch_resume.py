from __future__ import annotations

import random

import pytest
from fault_server import MIB, Content, FaultServer, Literal, Route
from fetch_kit import Fetcher, url_want

from upx.assets.fetch.download import mark_of
from upx.errors import CancelledError, FetchError
from upx.specs import UrlSource

CONTENT = Content(3 * MIB + 123, seed=1)
PATH = "/file.bin"
DATE = "Tue, 15 Nov 1994 12:45:26 GMT"


def test_a_file_is_fetched_verified_and_handed_over(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT))
    got = fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert got is not None
    assert (got.sha256, got.size, got.verified_by) == (CONTENT.sha256, CONTENT.size, "manifest")
    assert got.address == server.url(PATH)
    assert fetcher.has(CONTENT)
    assert route.sent == CONTENT.size
    assert list(fetcher.parts.iterdir()) == []
    assert fetcher.states == ["resolving", "fetching", "checking", "done"]
    assert fetcher.said[-1].done == fetcher.said[-1].total == CONTENT.size


def test_a_note_that_a_kill_cut_short_goes_with_its_part(server: FaultServer, fetcher: Fetcher) -> None:
    server.add(PATH, Route(CONTENT))
    fetcher.parts.mkdir(parents=True, exist_ok=True)
    (fetcher.parts / f".{CONTENT.sha256}.part.json.31009-d6a71113").write_text('{"to')
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert list(fetcher.parts.iterdir()) == []


@pytest.mark.parametrize("reset", [1, -1], ids=["closed", "reset"])
def test_a_dropped_connection_is_continued_where_it_broke(server: FaultServer, fetcher: Fetcher, reset: int) -> None:
    route = server.add(PATH, Route(CONTENT, drops=[reset * MIB, reset * MIB]))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert route.gets == 3
    assert route.sent <= CONTENT.size + 2 * MIB
    assert [seen.status for seen in route.seen] == [200, 206, 206]
    assert "the connection" in fetcher.notes


@pytest.mark.parametrize("seed", range(5))
def test_any_number_of_drops_is_survived_while_each_try_brings_a_byte(
    server: FaultServer, fetcher: Fetcher, seed: int
) -> None:
    rng = random.Random(seed)
    server.add(PATH, Route(CONTENT, dropper=lambda: rng.choice([1, -1]) * rng.randrange(1, MIB)))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)


def test_drops_without_a_new_byte_end_after_so_many_tries(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, drops=[MIB], dropper=lambda: 0))
    with pytest.raises(FetchError, match=r"model: file\.bin: cannot be fetched: .*in a row"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert route.gets == fetcher.network.tries
    assert fetcher.part(url_want("", CONTENT)).stat().st_size == MIB


def test_a_server_that_gives_a_byte_a_connection_is_given_up_in_the_end(
    server: FaultServer, fetcher: Fetcher, monkeypatch
) -> None:
    monkeypatch.setattr("upx.assets.fetch.tries.MAX_TRIES", 20)
    route = server.add(PATH, Route(CONTENT, dropper=lambda: 1))
    with pytest.raises(FetchError, match="after 20 tries"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert route.gets == 20


def test_a_part_of_an_earlier_run_is_continued(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT)
    fetcher.leave(want, CONTENT.bytes[:MIB])
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert route.sent == CONTENT.size - MIB
    assert fetcher.said[-1].resumed == MIB


def test_a_whole_part_of_an_earlier_run_needs_no_network(fetcher: Fetcher) -> None:
    want = url_want("http://127.0.0.1:1/file.bin", CONTENT)
    fetcher.leave(want, CONTENT.bytes, source=mark_of(want.sources[0]), address="http://somewhere/file.bin")
    got = fetcher.fetch(want)
    assert got is not None
    assert (got.address, got.source, got.verified_by) == ("http://somewhere/file.bin", want.sources[0], "manifest")
    assert fetcher.has(CONTENT)


@pytest.mark.parametrize("extra", [b"", b"more"], ids=["as long", "longer"])
def test_a_wrong_part_that_is_long_enough_is_thrown_away(server: FaultServer, fetcher: Fetcher, extra: bytes) -> None:
    route = server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT)
    fetcher.leave(want, bytes(CONTENT.size) + extra)
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert route.sent == CONTENT.size


def test_a_part_as_long_as_a_file_of_unknown_size_is_checked_after_416(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT, size=False)
    fetcher.leave(want, bytes(CONTENT.size))
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert [seen.status for seen in route.seen] == [416, 200]


def test_a_part_longer_than_the_file_starts_anew_after_416(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT, size=False)
    fetcher.leave(want, bytes(CONTENT.size + 5))
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert [seen.status for seen in route.seen] == [416, 200]


def test_a_part_with_a_known_hash_is_continued_from_any_source(
    server: FaultServer, other: FaultServer, fetcher: Fetcher
) -> None:
    server.add(PATH, Route(CONTENT, etag='"one"', drops=[MIB], dropper=lambda: 0))
    second = other.add(PATH, Route(CONTENT, etag='"two"'))
    want = url_want(server.url(PATH), CONTENT, more=(UrlSource(other.url(PATH)),))
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert second.sent < CONTENT.size
    assert "If-Range" not in second.seen[0].headers


@pytest.mark.parametrize(("etag", "date"), [('"v1"', ""), (None, DATE), ('W/"v1"', DATE)])
def test_without_a_hash_a_part_is_continued_if_its_file_did_not_change(
    server: FaultServer, fetcher: Fetcher, etag: str | None, date: str
) -> None:
    route = server.add(PATH, Route(CONTENT, etag=etag, last_modified=date, drops=[MIB]))
    got = fetcher.fetch(url_want(server.url(PATH)))
    assert fetcher.has(CONTENT)
    assert got is not None
    assert got.verified_by == ""
    assert [seen.status for seen in route.seen] == [200, 206]
    assert route.seen[1].headers["If-Range"] == (date or etag)


def test_without_a_hash_a_file_that_changed_starts_anew(server: FaultServer, fetcher: Fetcher) -> None:
    want = url_want(server.url(PATH))
    before = Content(CONTENT.size, seed=2)
    said = {"source": mark_of(want.sources[0]), "validator": '"before"', "total": str(CONTENT.size + 9)}
    fetcher.leave(want, before.bytes[:MIB], **said)
    route = server.add(PATH, Route(CONTENT))
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert route.seen[0].headers["If-Range"] == '"before"'
    assert route.sent == CONTENT.size


def test_an_empty_part_says_nothing_about_the_file_of_today(server: FaultServer, fetcher: Fetcher) -> None:
    want = url_want(server.url(PATH))
    fetcher.leave(want, b"", source=mark_of(want.sources[0]), validator='"before"', total="9")
    server.add(PATH, Route(CONTENT))
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)


@pytest.mark.parametrize("note", [{}, {"source": "another", "validator": '"1-1"'}, {"validator": 7}])
def test_without_a_hash_a_part_of_unknown_origin_starts_anew(
    server: FaultServer, fetcher: Fetcher, note: dict[str, str]
) -> None:
    want = url_want(server.url(PATH))
    fetcher.leave(want, b"x" * MIB, **note)
    route = server.add(PATH, Route(CONTENT))
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert "Range" not in route.seen[0].headers


def test_without_hash_and_validator_a_drop_starts_anew(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, etag=None, drops=[MIB]))
    fetcher.fetch(url_want(server.url(PATH)))
    assert fetcher.has(CONTENT)
    assert route.sent == CONTENT.size + MIB


def test_a_server_that_ignores_ranges_starts_anew(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, ranges="ignored", drops=[MIB]))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert [seen.status for seen in route.seen] == [200, 200]


def test_a_server_that_ignores_ranges_and_always_drops_is_given_up(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, ranges="ignored", dropper=lambda: MIB))
    with pytest.raises(FetchError, match="in a row"):
        fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert route.gets == fetcher.network.tries


def test_a_server_that_sends_another_piece_starts_anew(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, ranges="shifted", drops=[MIB]))
    fetcher.fetch(url_want(server.url(PATH), CONTENT))
    assert fetcher.has(CONTENT)
    assert [seen.status for seen in route.seen] == [200, 206, 200]


def test_a_cancel_keeps_the_part_and_the_next_fetch_continues_it(server: FaultServer, fetcher: Fetcher) -> None:
    route = server.add(PATH, Route(CONTENT, on_piece=lambda sent: sent >= MIB and fetcher.cancel.set()))
    want = url_want(server.url(PATH), CONTENT)
    with pytest.raises(CancelledError):
        fetcher.fetch(want)
    kept = fetcher.part(want).stat().st_size
    assert kept > 0
    assert fetcher.states[-1] == "failed"
    fetcher.cancel.clear()
    route.on_piece = None
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert route.seen[-1].headers["Range"] == f"bytes={kept}-"


def test_a_taker_that_fails_leaves_a_whole_part(server: FaultServer, fetcher: Fetcher, monkeypatch) -> None:
    route = server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT)

    def refuse(_got: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(fetcher, "take", refuse)
        with pytest.raises(OSError, match="no"):
            fetcher.fetch(want)
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert route.gets == 1


def test_an_empty_file_is_a_file(server: FaultServer, fetcher: Fetcher) -> None:
    empty = Literal(b"")
    server.add(PATH, Route(empty))
    got = fetcher.fetch(url_want(server.url(PATH)))
    assert got is not None
    assert got.size == 0
    assert fetcher.has(empty)
