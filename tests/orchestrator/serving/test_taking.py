"""Files that clients send, as they reach the disk: nothing unverified is ever anybody's, whatever comes."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import Content
from shelf_kit import MANUAL, add_backend, asset_text, make_shelf, url

from upx.assets.obtain import Need
from upx.errors import LicenceError, WeightsError
from upx.locks import try_lock
from upx.serving.keeper import Keeper, Uses
from upx.serving.taking import STALE_PART_S, Taking, TakingLine
from upx_protocol.files import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from upx.models.shelf import Shelf

CONTENT = Content(3 * CHUNK + 1234, seed=2)
SIZE, SHA = CONTENT.size, CONTENT.sha256
WHOLE = CONTENT.bytes
KEY, OTHER = "aa" * 32, "bb" * 32


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    add_backend(tmp_path, asset_text(CONTENT, MANUAL))
    return make_shelf(tmp_path)


def need(shelf: Shelf) -> Need:
    backend = shelf.catalog.backend("mine")
    return Need(backend, backend.models[0], backend.models[0].assets[0])


class Sender:
    """A worker's end of a line: one question, one answer."""

    def __init__(self, taking: Taking) -> None:
        self.line = TakingLine(taking)
        self.end = self.line.theirs.dup()
        self.end.settimeout(10.0)
        self.lines = self.end.makefile("rb")
        self.line.start()

    def ask(self, data: bytes = b"", **question: Any) -> dict[str, Any]:
        self.end.sendall(json.dumps(question).encode() + b"\n" + data)
        return json.loads(self.lines.readline())

    def begin(self, number: int = 1, sha256: str = SHA, size: int = SIZE, client: str = KEY) -> dict[str, Any]:
        return self.ask(begin=number, sha256=sha256, size=size, client=client)

    def chunk(self, data: bytes, number: int = 1) -> dict[str, Any]:
        return self.ask(data, chunk=number, nbytes=len(data))

    def send(self, data: bytes, start: int = 0, number: int = 1) -> dict[str, Any]:
        """All of it from ``start`` on; the last answer."""
        answer: dict[str, Any] = {}
        for offset in range(start, len(data), CHUNK):
            answer = self.chunk(data[offset : offset + CHUNK], number)
            if "offset" not in answer:
                break
        return answer

    def close(self) -> None:
        """As when the worker dies; waits until the other end has let go."""
        self.lines.close()
        self.end.close()
        self.line._thread.join(5.0)
        assert not self.line._thread.is_alive()


@pytest.fixture
def taking(shelf) -> Taking:
    made = Taking(shelf)
    made.want([need(shelf)])
    return made


@contextmanager
def sending(taking: Taking) -> Iterator[Sender]:
    made = Sender(taking)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def sender(taking) -> Iterator[Sender]:
    with sending(taking) as made:
        yield made


def kept(shelf: Shelf) -> list[str]:
    """What lies in the store, verified or not."""
    return sorted(path.name for path in shelf.store.root.rglob("*") if path.is_file() and path.parent.name != "uses")


def blobs(shelf: Shelf) -> dict[str, int]:
    return shelf.store.blobs()


# ---------------------------------------------------------------------------------------------- well


def test_a_file_is_in_the_store_once_its_last_byte_has_come_and_no_sooner(shelf, sender) -> None:
    assert sender.begin() == {"offset": 0}
    assert sender.send(WHOLE[:-1234]) == {"offset": 3 * CHUNK}
    assert blobs(shelf) == {}
    assert shelf.store.find("mine-x2", "weights") is None
    assert sender.chunk(WHOLE[-1234:]) == {"offset": SIZE}
    receipt = shelf.store.find("mine-x2", "weights")
    assert receipt.trouble == ""
    assert receipt.path.read_bytes() == WHOLE
    assert (receipt.receipt.verified, receipt.receipt.source) == ("manifest", {"kind": "client", "sender": KEY})
    assert not list(shelf.store.parts.iterdir())


def test_what_is_there_already_is_not_sent_again(shelf, sender) -> None:
    sender.begin()
    sender.send(WHOLE)
    assert sender.begin(number=2) == {"offset": SIZE}


def test_a_file_goes_on_after_its_worker_was_killed(shelf, taking) -> None:
    with sending(taking) as first:
        first.begin()
        first.send(WHOLE[: 2 * CHUNK])
    with sending(taking) as second:
        assert second.begin() == {"offset": 2 * CHUNK}
        assert second.send(WHOLE, start=2 * CHUNK) == {"offset": SIZE}
    assert blobs(shelf) == {SHA: SIZE}


def test_a_part_that_a_fetch_has_left_is_continued(shelf, sender) -> None:
    shelf.store.parts.mkdir(parents=True)
    (shelf.store.parts / f"{SHA}.part").write_bytes(WHOLE[:1000])
    assert sender.begin() == {"offset": 1000}
    assert sender.send(WHOLE, start=1000) == {"offset": SIZE}


# ---------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize("sha256", ["ff" * 32, "../../../etc/passwd", "", f"{SHA}\n", SHA[:-1]])
def test_a_digest_that_nobody_wants_is_refused_and_nothing_is_made(shelf, sender, sha256) -> None:
    answer = sender.begin(sha256=sha256)
    assert (answer["failure"], answer["retryable"]) == ("input", False)
    assert kept(shelf) == []


def test_a_file_of_the_manifest_that_no_load_has_asked_for_is_refused(shelf) -> None:
    with sending(Taking(shelf)) as sender:
        assert "is wanted here" in sender.begin()["message"]
    assert kept(shelf) == []


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 1, 1 << 50])
def test_another_size_than_the_manifests_is_refused_before_a_byte_is_written(shelf, sender, size) -> None:
    assert "does not have" in sender.begin(size=size)["message"]
    assert kept(shelf) == []


def test_where_only_an_estimate_is_known_there_is_a_limit_all_the_same(tmp_path) -> None:
    add_backend(tmp_path, asset_text(None, MANUAL, digest=f'sha256 = "{SHA}"\nabout = {SIZE - 7}'))
    shelf = make_shelf(tmp_path)
    taking = Taking(shelf)
    taking.want([need(shelf)])
    with sending(taking) as sender:
        assert "does not have" in sender.begin(size=SIZE * 2 + (1 << 20))["message"]
        assert sender.begin(number=2) == {"offset": 0}
        assert sender.send(WHOLE, number=2) == {"offset": SIZE}


def test_wrong_bytes_leave_nothing_behind(shelf, sender) -> None:
    sender.begin()
    answer = sender.send(WHOLE[:-1] + b"!")
    assert (answer["failure"], answer["retryable"]) == ("input", False)
    assert "sha256 differs" in answer["message"]
    assert blobs(shelf) == {}
    assert kept(shelf) == []


def test_wrong_bytes_of_an_earlier_try_cost_one_more_try_from_the_beginning(shelf, taking) -> None:
    with sending(taking) as sender:
        sender.begin()
        sender.send(bytes(CHUNK))
    with sending(taking) as sender:
        assert sender.begin() == {"offset": CHUNK}
        answer = sender.send(WHOLE, start=CHUNK)
        assert (answer["failure"], answer["retryable"]) == ("transient", True)
        assert sender.begin(number=2) == {"offset": 0}
        assert sender.send(WHOLE, number=2) == {"offset": SIZE}


def test_nobody_goes_on_with_what_another_client_has_begun(shelf, taking) -> None:
    with sending(taking) as sender:
        sender.begin(client=OTHER)
        sender.send(bytes(CHUNK))
    with sending(taking) as sender:
        assert sender.begin() == {"offset": 0}
        assert sender.send(WHOLE) == {"offset": SIZE}


def test_a_part_that_is_whole_and_wrong_is_begun_anew(shelf, sender) -> None:
    shelf.store.parts.mkdir(parents=True)
    (shelf.store.parts / f"{SHA}.part").write_bytes(bytes(SIZE))
    assert sender.begin() == {"offset": 0}


def test_more_bytes_than_the_file_has_are_not_written(shelf, sender) -> None:
    sender.begin()
    sender.send(WHOLE[: 3 * CHUNK])
    answer = sender.chunk(WHOLE[3 * CHUNK :] + b"more")
    assert "longer than" in answer["message"]
    assert blobs(shelf) == {}
    assert (shelf.store.parts / f"{SHA}.part").stat().st_size == 3 * CHUNK


def test_two_at_once_send_one_file_once(shelf, taking) -> None:
    with sending(taking) as first, sending(taking) as second:
        first.begin()
        first.send(WHOLE[: 2 * CHUNK])
        assert second.begin(client=OTHER) == {"later": 2 * CHUNK}
        assert first.send(WHOLE, start=2 * CHUNK) == {"offset": SIZE}
        assert second.begin(number=2, client=OTHER) == {"offset": SIZE}
    assert blobs(shelf) == {SHA: SIZE}


def test_while_a_fetch_brings_it_nothing_is_taken(shelf, sender) -> None:
    with try_lock(shelf.store.parts / f"{SHA}.lock"):
        assert sender.begin() == {"later": 0}
    assert sender.begin(number=2) == {"offset": 0}


def test_a_link_under_a_parts_name_is_not_followed(shelf, sender, tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    shelf.store.parts.mkdir(parents=True)
    (shelf.store.parts / f"{SHA}.part").symlink_to(victim)
    assert "failure" in sender.begin()
    assert victim.read_text() == "keep me"


def test_a_safetensors_file_that_is_none_is_not_kept_though_its_digest_is_right(tmp_path) -> None:
    add_backend(tmp_path, asset_text(CONTENT, MANUAL, file="model.safetensors"))
    shelf = make_shelf(tmp_path)
    taking = Taking(shelf)
    taking.want([need(shelf)])
    with sending(taking) as sender:
        sender.begin()
        assert "no whole safetensors file" in sender.send(WHOLE)["message"]
    assert blobs(shelf) == {}


# ---------------------------------------------------------------------------------------------- the disk


def test_a_disk_that_is_too_small_is_said_before_a_byte_is_written(shelf, sender, monkeypatch) -> None:
    usage = shutil.disk_usage(shelf.settings.data_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=SIZE + 1000))
    answer = sender.begin()
    assert "no space" in answer["message"]
    assert not answer["retryable"]
    assert (shelf.store.parts / f"{SHA}.part").stat().st_size == 0


def test_a_disk_that_fills_up_midway_keeps_what_came_and_goes_on_later(shelf, taking) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with sending(taking) as sender:
        sender.begin()
        sender.send(WHOLE[:CHUNK])
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK + 5000, before[1]))
        try:
            answer = sender.chunk(WHOLE[CHUNK : 2 * CHUNK])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "File too large" in answer["message"]
        assert blobs(shelf) == {}
        assert sender.begin(number=2) == {"offset": CHUNK + 5000}
        assert sender.send(WHOLE, start=CHUNK + 5000, number=2) == {"offset": SIZE}


def test_a_folder_that_cannot_be_written_to_is_said(shelf, sender) -> None:
    shelf.store.root.mkdir(parents=True)
    shelf.store.parts.write_text("no folder")
    answer = sender.begin()
    assert answer["failure"] == "input"
    assert "cannot be used" in answer["message"]


def test_parts_that_nobody_came_back_for_are_swept(shelf, taking) -> None:
    shelf.store.parts.mkdir(parents=True)
    for name, age in (("cc" * 32, STALE_PART_S + 60), ("dd" * 32, 60.0)):
        part = shelf.store.parts / f"{name}.part"
        part.write_bytes(b"left")
        os.utime(part, (part.stat().st_mtime - age,) * 2)
    with sending(taking) as sender:
        sender.begin()
    assert {path.stem for path in shelf.store.parts.glob("*.part")} == {SHA, "dd" * 32}


# ---------------------------------------------------------------------------------------------- the line


@pytest.mark.parametrize(
    "line",
    [
        *(b"\xff\n", b"{\n", b"[]\n", b"3\n", b"null\n", b"{}\n", b'{"other": 1}\n', b'{"begin": 1}\n'),
        *(b'{"chunk": 1}\n', b'{"chunk": 1, "nbytes": 0}\n', b'{"chunk": 1, "nbytes": 262145}\n', b'{"end": "x"}\n'),
        *(b'{"end": null}\n', b'{"end": Infinity}\n', b'{"chunk": 1, "nbytes": null}\n'),
        *(b'{"chunk": 1, "nbytes": Infinity}\n', b'{"begin": 1, "sha256": "", "size": null, "client": ""}\n'),
        *(b"[" * 100_000 + b"\n", b"x" * 70_000),
    ],
)
def test_a_line_that_is_no_question_ends_the_line_and_nothing_else(taking, shelf, line) -> None:
    made = TakingLine(taking)
    end = made.theirs.dup()
    end.settimeout(5.0)
    made.start()
    with end, suppress(ConnectionResetError, BrokenPipeError):  # where it did not even read to the end
        end.sendall(line)
        assert end.recv(1) == b""
    made._thread.join(5.0)  # what it might raise is this test's
    assert kept(shelf) == []


def test_a_chunk_of_a_file_that_was_not_begun_is_a_fault_and_the_line_lives_on(sender, caplog) -> None:
    with caplog.at_level(logging.CRITICAL, "upx.serve"):
        assert sender.chunk(b"x", number=9)["failure"] == "transient"
    assert sender.begin() == {"offset": 0}


def test_a_line_that_is_given_up_closes_both_ends(taking) -> None:
    line = TakingLine(taking)
    line.close()
    assert (line._ours.fileno(), line.theirs.fileno()) == (-1, -1)


# ---------------------------------------------------------------------------------------------- what is wanted


def keeper(shelf: Shelf, tmp_path: Path, *, take: bool = True, offline: bool = True) -> Keeper:
    spec = shelf.catalog.backend("mine")
    return Keeper(spec, shelf, site_packages=tmp_path, offline=offline, accept_licence=False, take_files=take)


QUESTION = {"model": "mine-x2", "weights": "", "precision": "auto", "threads": 0, "params": {}}
WANTED = [{"role": "weights", "name": "weights.bin", "sha256": SHA, "size": SIZE}]


def test_what_is_missing_is_wanted_with_the_manifests_own_digest(shelf, tmp_path) -> None:
    answer = keeper(shelf, tmp_path).answer(QUESTION, "cpu", Uses())
    assert answer["wanted"] == WANTED
    assert "weights.bin" in answer["message"]


def test_what_cannot_be_fetched_is_wanted_too(tmp_path) -> None:
    add_backend(tmp_path, asset_text(CONTENT, url("http://127.0.0.1:9/w.bin")))
    assert keeper(make_shelf(tmp_path), tmp_path, offline=False).answer(QUESTION, "cpu", Uses())["wanted"] == WANTED


def test_a_box_that_takes_nothing_names_the_way_to_make_it(shelf, tmp_path) -> None:
    with pytest.raises(WeightsError) as caught:
        keeper(shelf, tmp_path, take=False).answer(QUESTION, "cpu", Uses())
    assert "upx worker serve mine --take-files" in caught.value.hint


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"digest": 'unverified = "none was published"\nabout = 900'}, "nobody has published the sha256"),
        ({"file": "weights.pth"}, "is a pickle"),
        ({"digest": f'sha256 = "{SHA}"'}, "the size of weights.bin is not known"),
    ],
    ids=["unverified", "pickle", "size"],
)
def test_what_cannot_be_verified_is_never_wanted_and_the_reason_is_said(tmp_path, facts, why) -> None:
    add_backend(tmp_path, asset_text(CONTENT, MANUAL, **facts))
    with pytest.raises(WeightsError) as caught:
        keeper(make_shelf(tmp_path), tmp_path).answer(QUESTION, "cpu", Uses())
    assert why in caught.value.hint


def test_before_its_licence_is_accepted_on_the_box_nothing_is_wanted(tmp_path) -> None:
    more = 'licence = { name = "CC-BY-NC-4.0", noncommercial = true }'
    add_backend(tmp_path, asset_text(CONTENT, MANUAL))
    manifest = tmp_path / "data" / "backends" / "mine" / "backend.toml"
    manifest.write_text(manifest.read_text().replace('licence = { name = "MIT" }', more))
    with pytest.raises(LicenceError):
        keeper(make_shelf(tmp_path), tmp_path).answer(QUESTION, "cpu", Uses())


def test_a_damaged_file_of_the_box_is_its_owners_to_mend(shelf, tmp_path, sender) -> None:
    sender.begin()
    sender.send(WHOLE)
    blob = shelf.store.blob(SHA)
    blob.chmod(0o644)
    blob.write_bytes(bytes(SIZE))
    box = keeper(shelf, tmp_path)
    with closing(Uses()) as uses, pytest.raises(WeightsError, match="differs from its sha256"):
        box.answer(QUESTION, "cpu", uses)
