"""The keys of a machine: who reads them, whom it lets in, what a broken file leads to."""

from __future__ import annotations

import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from upx.config import Settings
from upx.errors import UsageError, WorkerError
from upx.private_files import changing, read_private, write_private
from upx.remote.keys import KeyRing, z85
from upx.remote.names import parse_key

if TYPE_CHECKING:
    from pathlib import Path

A, B = "a" * 64, "b" * 64


@pytest.fixture
def ring(tmp_path) -> KeyRing:
    return KeyRing(Settings.from_env({"UPX_HOME": str(tmp_path / "home")}))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_their_user_may_read_the_keys(ring) -> None:
    ring.public("client")
    ring.worker_file()
    ring.allow("laptop", A)
    assert mode(ring.folder) == 0o700
    files = {path.name: mode(path) for path in ring.folder.iterdir() if path.name != ".lock"}
    assert files == dict.fromkeys(("client.json", "server.json", "worker.json", "allowed"), 0o600)


def test_a_pair_is_made_once_and_client_and_server_never_share_one(ring) -> None:
    client, server = ring.public("client"), ring.public("server")
    assert re.fullmatch("[0-9a-f]{64}", client)
    assert client != server
    assert (ring.public("client"), ring.public("server")) == (client, server)
    assert z85(client) == ring.client().public


def test_a_new_pair_replaces_one_and_leaves_the_other(ring) -> None:
    client, server = ring.public("client"), ring.public("server")
    assert ring.new("client") != client
    assert ring.public("client") != client
    assert ring.public("server") == server


def test_many_who_need_a_pair_at_once_get_the_same(ring) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: ring.public("client"), range(8)))) == 1


def test_many_who_are_allowed_at_once_are_all_allowed(ring) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: ring.allow(f"n{number}", f"{number:064x}"), range(1, 9)))
    assert {each.name for each in ring.allowed()} == {f"n{number}" for number in range(1, 9)}


def test_a_key_is_64_hexadecimal_digits_in_either_case() -> None:
    assert parse_key(f" {A.upper()}\n") == A


@pytest.mark.parametrize("text", ["", "a" * 63, "a" * 65, "g" * 64, f"{A} {B}", "\uff10" * 64])
def test_anything_else_is_no_key(text) -> None:
    with pytest.raises(UsageError, match="is no key"):
        parse_key(text)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\nb", "#a", "a/b", "x" * 64])
def test_a_name_that_would_break_the_list_is_refused(ring, name) -> None:
    with pytest.raises(UsageError, match="is no name"):
        ring.allow(name, A)
    assert ring.allowed() == []


def test_who_is_allowed_twice_stands_there_once(ring) -> None:
    ring.allow("laptop", A.upper())
    ring.allow("laptop", A)
    assert [(each.name, each.key) for each in ring.allowed()] == [("laptop", A)]


def test_a_name_keeps_its_key_until_it_is_revoked(ring) -> None:
    ring.allow("laptop", A)
    with pytest.raises(UsageError, match="laptop has another key") as caught:
        ring.allow("laptop", B)
    assert "upx key revoke laptop" in caught.value.hint
    ring.revoke("laptop")
    ring.allow("laptop", B)
    assert [each.key for each in ring.allowed()] == [B]


@pytest.mark.parametrize("word", ["laptop", A, A.upper()])
def test_a_client_is_revoked_by_its_name_or_key_and_the_others_and_the_comments_stay(ring, word) -> None:
    ring.allow("laptop", A)
    ring.allow("desk", B)
    write_private(ring.list_path, "# mine\n" + ring.list_path.read_text())
    assert [each.name for each in ring.revoke(word)] == ["laptop"]
    assert ring.list_path.read_text() == f"# mine\ndesk {B}\n"


def test_a_key_that_has_two_names_is_revoked_under_both(ring) -> None:
    ring.allow("laptop", A)
    ring.allow("old-laptop", A)
    assert [each.name for each in ring.revoke("laptop")] == ["laptop", "old-laptop"]
    assert ring.allowed() == []


def test_who_is_not_allowed_cannot_be_revoked_and_the_hint_names_those_who_are(ring) -> None:
    ring.allow("laptop", A)
    with pytest.raises(UsageError) as caught:
        ring.revoke("desk")
    assert caught.value.hint == "allowed are: laptop"


def test_a_machines_own_server_key_is_no_clients(ring) -> None:
    with pytest.raises(UsageError, match="own key as a server"):
        ring.allow("laptop", ring.public("server"))


@pytest.mark.parametrize("name", ["client.json", "allowed"])
def test_a_file_that_others_can_read_is_refused(ring, name) -> None:
    ring.public("client")
    ring.allow("laptop", A)
    (ring.folder / name).chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others") as caught:
        ring.public("client") if name == "client.json" else ring.allowed()
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"public": "x"}'])
def test_a_broken_pair_is_said_with_the_way_to_another(ring, text) -> None:
    write_private(ring.folder / "client.json", text)
    with pytest.raises(UsageError, match="is no pair of keys") as caught:
        ring.public("client")
    assert "upx key new client" in caught.value.hint


def test_a_list_that_is_no_text_is_said_and_never_overwritten(ring) -> None:
    write_private(ring.list_path, "")
    ring.list_path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is no text"):
        ring.allow("laptop", A)
    assert ring.list_path.read_bytes() == b"\xff\xfe"


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch) -> None:
    path = tmp_path / "keys" / "client.json"
    write_private(path, "before")

    def fails(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("upx.private_files.os.fsync", fails)
    with pytest.raises(OSError, match="No space"):
        write_private(path, "after")
    assert read_private(path) == "before"
    assert [each.name for each in path.parent.iterdir()] == ["client.json"]


def test_a_folder_that_another_command_holds_is_said_after_some_time(ring, monkeypatch) -> None:
    monkeypatch.setattr("upx.private_files.LOCK_S", 0.1)
    ring.public("server")
    with changing(ring.folder), pytest.raises(WorkerError, match="held by another upx command"):
        ring.allow("laptop", A)


def test_the_worker_is_told_its_pair_and_the_own_hosts_key_and_no_other_secret(ring) -> None:
    text = ring.worker_file().read_text()
    assert json.loads(text)["client_public"] == ring.client().public
    assert ring.client().secret not in text


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_folder_that_others_can_enter_is_refused_with_what_to_do(ring, mode) -> None:
    ring.public("client")
    ring.folder.chmod(mode)
    for act in (
        lambda: ring.public("client"),
        lambda: ring.new("client"),
        lambda: ring.allow("a", "ab" * 32),
        ring.worker_file,
    ):
        with pytest.raises(UsageError, match="not private") as caught:
            act()
        assert f"chmod 700 {ring.folder}" in caught.value.hint


def test_a_folder_that_is_a_link_is_as_private_as_what_it_leads_to(ring, tmp_path) -> None:
    key = ring.public("client")
    ring.folder.rename(tmp_path / "elsewhere")
    ring.folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert ring.public("client") == key
    (tmp_path / "elsewhere").chmod(0o755)
    with pytest.raises(UsageError, match="not private"):
        ring.public("client")
