"""The boxes that a machine knows: names, addresses, and keys that never change by themselves."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from upx.config import Settings
from upx.errors import UsageError
from upx.private_files import write_private
from upx.remote.boxes import Book, Box, is_loopback, parse_address, parse_box

A, B = "a" * 64, "b" * 64
ATTIC = Box("attic", "tcp://192.168.1.20:7600", A, "span")


@pytest.fixture
def home(tmp_path) -> Settings:
    return Settings.from_env({"UPX_HOME": str(tmp_path / "home")})


@pytest.fixture
def book(home) -> Book:
    return Book(home)


@pytest.fixture
def path(home):
    return home.data_dir / "keys" / "boxes.json"


def test_what_was_added_is_known_to_the_next_command_in_the_order_of_names(book, home, path) -> None:
    cellar = Box("cellar", "tcp://[::1]:7600", B)
    book.add(cellar)
    book.add(ATTIC)
    assert Book(home).all() == [ATTIC, cellar]
    assert Book(home).get("cellar") == cellar
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_known_before_the_first_is_added(book) -> None:
    assert book.all() == []
    with pytest.raises(UsageError, match="no box is called 'attic'") as caught:
        book.get("attic")
    assert "upx worker add attic" in caught.value.hint


def test_a_box_whose_key_is_another_is_refused_and_the_pinned_one_stays(book) -> None:
    book.add(ATTIC)
    with pytest.raises(UsageError, match=f"pinned to another key: {A}") as caught:
        book.add(Box("attic", ATTIC.endpoint, B))
    assert "upx worker rm attic" in caught.value.hint
    assert book.all() == [ATTIC]
    book.remove("attic")
    assert book.add(Box("attic", ATTIC.endpoint, B)).key == B


def test_an_address_may_change_and_what_was_learnt_stays(book) -> None:
    book.add(ATTIC)
    moved = book.add(Box("attic", "tcp://192.168.1.21:7600", A))
    assert (moved.endpoint, moved.backend) == ("tcp://192.168.1.21:7600", "span")


def test_a_removed_box_is_forgotten_and_the_others_are_not(book) -> None:
    book.add(ATTIC)
    book.add(Box("cellar", "tcp://cellar:7600", B))
    assert book.remove("attic") == ATTIC
    assert [box.name for box in book.all()] == ["cellar"]
    with pytest.raises(UsageError):
        book.remove("attic")


def test_many_that_are_added_at_once_are_all_kept(book) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: book.add(Box(f"b{number}", "tcp://x:1", A)), range(8)))
    assert [box.name for box in book.all()] == [f"b{number}" for number in range(8)]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"boxes": [{"name": "x"}]}', '{"boxes": [{"name": "x", "colour": "red"}]}']
)
def test_a_broken_book_is_said_and_not_overwritten(book, path, text) -> None:
    write_private(path, text)
    with pytest.raises(UsageError, match="cannot be read"):
        book.add(ATTIC)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "wrong", [{"key": "ab"}, {"key": "z" * 64}, {"key": 3}, {"endpoint": "attic"}, {"endpoint": None}, {"name": "any"}]
)
def test_what_somebody_wrote_into_the_book_by_hand_is_said_with_the_box_and_what_to_do(book, path, wrong) -> None:
    write_private(
        path, json.dumps({"boxes": [asdict(Box("cellar", "tcp://cellar:7600", B)), {**asdict(ATTIC), **wrong}]})
    )
    with pytest.raises(UsageError, match=f"boxes.json is wrong about {wrong.get('name', 'attic')}: ") as caught:
        book.get("cellar")
    assert "correct it there" in caught.value.hint


def test_a_book_that_others_can_read_is_refused(book, path) -> None:
    book.add(ATTIC)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        book.all()


def test_the_other_workers_of_a_box_are_at_other_ports() -> None:
    assert (ATTIC.port, ATTIC.at(7601)) == (7600, "tcp://192.168.1.20:7601")
    assert Box("v6", "tcp://[fe80::1]:7600", A).at(7601) == "tcp://[fe80::1]:7601"


@pytest.mark.parametrize("name", ["", "any", "local", "all", "a,b", "a b", "-a", "../a"])
def test_a_name_that_on_could_not_take_is_refused(name) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a box"):
        parse_box(name, "tcp://x:1", A)


@pytest.mark.parametrize("text", ["tcp://10.0.0.1:7600", "tcp://attic.local:1", "tcp://[::1]:65535"])
def test_an_address_is_a_host_and_a_port(text) -> None:
    assert parse_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "attic", "attic:7600", "ipc:///tmp/x", "http://attic:80", "tcp://attic", "tcp://attic:0"),
        *("tcp://attic:65536", "tcp://attic:*", "tcp://*:7600", "tcp://a;b:1", "tcp://a:1\n", "tcp://a:1;tcp://b:1"),
    ],
)
def test_anything_else_is_no_address(text) -> None:
    with pytest.raises(UsageError, match="is no address"):
        parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_these_only_this_machine_reaches(host) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "attic", "localhost.example.org"])  # noqa: S104
def test_these_others_may_reach(host) -> None:
    assert not is_loopback(host)
