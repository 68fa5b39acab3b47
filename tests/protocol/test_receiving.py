"""Files on their way into a machine: every chunk is the one that is due, and nobody else waits for any of it."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from test_service import Bench, kinds, upscale

from upx_protocol.actions import Failure, Keep, KeepTask, Kept, LoadEnded
from upx_protocol.clerk import Clerk
from upx_protocol.codec import Received, decode, encode
from upx_protocol.errors import MalformedError
from upx_protocol.files import CHUNK, FILES, WINDOW
from upx_protocol.messages import (
    Buffer,
    Chunk,
    Failed,
    Hello,
    Load,
    Message,
    Offer,
    Ping,
    Pong,
    Reject,
    Taken,
    Want,
    Wanted,
    Welcome,
)
from upx_protocol.receiving import MAX_FILES, MAX_FILES_OF_CLIENT, STALL_S
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import RunningWorker
    from upx_protocol.testing import FakeHost

SHA = "ab" * 32
WANTED = Wanted("weights", "w.bin", SHA, 90)


class FileBench(Bench):
    """A bench whose worker takes files; ``kept``: what was handed to whoever keeps them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(files_fd=9, **options)
        self.kept: list[KeepTask] = []

    def carry_out(self, actions: Sequence[Any]) -> list[tuple[bytes, Message]]:
        self.kept += [action.task for action in actions if isinstance(action, Keep)]
        return super().carry_out([action for action in actions if not isinstance(action, Keep)])

    def join(self, peer: bytes, *features: str) -> str:
        welcome = self.say(peer, Hello(1, OLDEST, NEWEST, features))[0]
        assert isinstance(welcome, Welcome)
        return welcome.session

    def chunk(self, peer: bytes, session: str, number: int, offset: int, nbytes: int = CHUNK) -> list[Message]:
        message = Chunk(number, offset, (Buffer("uint8", (nbytes,), nbytes),))
        said = self.carry_out(self.service.receive(peer, Received(message, session, (bytes(nbytes),)), self.now))
        return [answer for to, answer in said if to == peer]

    def tell(self, offset: int = 0, **facts: Any) -> list[Message]:
        """What the keeper answers to the last task."""
        said = self.carry_out(self.service.outcome(Kept(self.kept[-1].number, offset, **facts), self.now))
        return [message for _, message in said]

    def begin(self, peer: bytes = b"a", size: int = 3 * CHUNK, offset: int = 0) -> str:
        session = self.join(peer, FILES)
        assert self.say(peer, Offer(5, SHA, size), session) == []
        assert self.tell(offset) == [Taken(5, offset, WINDOW)]
        return session


@pytest.fixture
def bench() -> FileBench:
    bench = FileBench()
    bench.ready()
    return bench


def whats(bench: FileBench) -> list[str]:
    return [task.what for task in bench.kept]


# ---------------------------------------------------------------------------------------------- who may


@pytest.mark.parametrize(
    ("takes", "asks", "named"), [(True, True, True), (True, False, False), (False, True, False), (False, False, False)]
)
def test_files_are_a_feature_that_both_sides_have_to_name(*, takes: bool, asks: bool, named: bool) -> None:
    bench = Bench(files_fd=9 if takes else -1)
    welcome = bench.say(b"a", Hello(1, OLDEST, NEWEST, (FILES, "other") if asks else ()))[0]
    assert isinstance(welcome, Welcome)
    assert (FILES in welcome.features) is named


def test_a_host_that_may_send_learns_what_is_wanted_and_another_that_the_load_has_failed(bench: FileBench) -> None:
    able, old = bench.join(b"a", FILES), bench.join(b"b")
    bench.say(b"a", Load(2, "key", "model"), able)
    bench.say(b"b", Load(3, "key", "model"), old)
    said = dict(bench.outcome(LoadEnded(failure=Failure("input", False, "w.bin is missing"), wanted=(WANTED,))))
    assert said == {
        b"a": Want(2, (WANTED,), "w.bin is missing"),
        b"b": Failed(3, message="w.bin is missing", failure="input"),
    }


def test_a_host_that_did_not_ask_for_the_feature_cannot_send(bench: FileBench) -> None:
    session = bench.join(b"a")
    (failed,) = bench.say(b"a", Offer(5, SHA, 90), session)
    assert isinstance(failed, Failed)
    assert bench.kept == []


@pytest.mark.parametrize(
    "offer",
    [Offer(5, "", 9), Offer(5, "AB" * 32, 9), Offer(5, "../../etc/passwd", 9), Offer(5, SHA, 0), Offer(5, SHA, -1)],
)
def test_an_offer_without_digest_or_size_goes_no_further(bench: FileBench, offer: Offer) -> None:
    session = bench.join(b"a", FILES)
    (failed,) = bench.say(b"a", offer, session)
    assert isinstance(failed, Failed)
    assert not failed.retryable
    assert bench.kept == []


def test_without_a_session_nothing_is_taken(bench: FileBench) -> None:
    (reject,) = bench.chunk(b"a", "nobody", 5, 0)
    assert isinstance(reject, Reject)
    assert reject.reason == "session"


# ---------------------------------------------------------------------------------------------- chunks


def test_a_file_is_kept_chunk_by_chunk_and_told_when_it_is(bench: FileBench) -> None:
    session = bench.begin(size=2 * CHUNK + 7)
    for offset, nbytes in ((0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 7)):
        assert bench.chunk(b"a", session, 5, offset, nbytes) == []
        assert bench.tell(offset + nbytes) == [Taken(5, offset + nbytes, WINDOW)]
    assert whats(bench) == ["begin", "chunk", "chunk", "chunk"]
    assert bench.chunk(b"a", session, 5, 2 * CHUNK + 7, 1) == []
    assert whats(bench)[-1] == "chunk", "of a file that is whole nothing more is kept"


def test_a_file_goes_on_where_it_broke(bench: FileBench) -> None:
    session = bench.begin(size=3 * CHUNK, offset=CHUNK + 11)
    assert bench.chunk(b"a", session, 5, CHUNK + 11) == []
    assert len(bench.kept) == 2


@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [(CHUNK, CHUNK), (1, CHUNK), (0, CHUNK - 1), (0, 1), (2**62, CHUNK), (-1, CHUNK)],
    ids=["gap", "shifted", "short", "tiny", "far", "negative"],
)
def test_a_chunk_that_is_not_the_next_one_ends_the_file(bench: FileBench, offset: int, nbytes: int) -> None:
    session = bench.begin()
    (failed,) = bench.chunk(b"a", session, 5, offset, nbytes)
    assert isinstance(failed, Failed)
    assert (failed.id, failed.failure, failed.retryable) == (5, "input", False)
    assert whats(bench) == ["begin", "end"]
    assert bench.chunk(b"a", session, 5, 0) == [], "what was on its way is passed over"
    assert whats(bench) == ["begin", "end"]


def test_more_than_the_size_that_was_offered_is_not_taken(bench: FileBench) -> None:
    session = bench.begin(size=CHUNK + 1)
    bench.chunk(b"a", session, 5, 0)
    bench.tell(CHUNK)
    assert kinds(bench.chunk(b"a", session, 5, CHUNK, 2)) == ["Failed"]


def test_chunks_before_the_answer_to_the_offer_are_not_taken(bench: FileBench) -> None:
    session = bench.join(b"a", FILES)
    bench.say(b"a", Offer(5, SHA, CHUNK), session)
    assert kinds(bench.chunk(b"a", session, 5, 0)) == ["Failed"]


def test_no_more_than_a_window_is_held_in_memory(bench: FileBench) -> None:
    session = bench.begin(size=WINDOW + 2 * CHUNK)
    for offset in range(0, WINDOW, CHUNK):
        assert bench.chunk(b"a", session, 5, offset) == []
    (failed,) = bench.chunk(b"a", session, 5, WINDOW)
    assert isinstance(failed, Failed)
    assert failed.message == "more than the window"


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.uint8), np.zeros(4, np.uint16), np.zeros(CHUNK + 1, np.uint8)]
)
def test_what_is_no_chunk_of_plain_bytes_is_no_message(array: Any) -> None:
    with pytest.raises(MalformedError):
        decode([bytes(part) for part in encode(Chunk(1, 0, ()), session="s", arrays=[array])])
    with pytest.raises(MalformedError):
        decode([bytes(part) for part in encode(Chunk(1, 0, ()), session="s")])


# ---------------------------------------------------------------------------------------------- several


def test_a_host_sends_one_file_at_a_time(bench: FileBench) -> None:
    session = bench.begin()
    bench.say(b"a", Offer(6, "cd" * 32, CHUNK), session)
    assert whats(bench) == ["begin", "end", "begin"]


def test_offers_in_a_row_are_one_task_until_the_keeper_has_answered(bench: FileBench) -> None:
    session = bench.join(b"a", FILES)
    assert bench.say(b"a", Offer(5, SHA, CHUNK), session) == []
    for number in range(6, 1_000):
        assert bench.say(b"a", Offer(number, SHA, CHUNK), session) == [Taken(number, 0)]
    assert bench.say(b"a", Offer(9, "no digest", CHUNK), session) == [Taken(9, 0)]
    assert whats(bench) == ["begin"]
    assert bench.tell() == [Taken(5, 0, WINDOW)]
    assert bench.say(b"a", Offer(1_000, SHA, CHUNK), session) == []
    assert whats(bench) == ["begin", "end", "begin"]


def test_a_file_that_is_given_up_before_the_keeper_has_answered_keeps_its_place_until_then(bench: FileBench) -> None:
    for number in range(100):
        session = bench.join(b"a", FILES)
        bench.say(b"a", Offer(number, SHA, CHUNK), session)
        if number % 2:
            # As good as a new session: it ends the file before it has begun.
            bench.chunk(b"a", session, number, 0)
        bench.tick(0.1)
    assert whats(bench) == ["begin"] * MAX_FILES
    for task in list(bench.kept):
        assert bench.carry_out(bench.service.outcome(Kept(task.number), bench.now)) == []
    bench.tick(0.1)
    assert whats(bench)[MAX_FILES:] == ["end"] * MAX_FILES
    bench.begin(b"b")


def test_one_file_too_many_waits(bench: FileBench) -> None:
    for number in range(MAX_FILES):
        bench.begin(b"%d" % number)
    session = bench.join(b"late", FILES)
    assert bench.say(b"late", Offer(5, SHA, CHUNK), session) == [Taken(5, 0, 0)]
    assert whats(bench) == ["begin"] * MAX_FILES


def test_one_key_takes_no_more_than_half_of_the_places(bench: FileBench) -> None:
    for peer in (b"a", b"b", b"c"):
        session = bench.join(peer, FILES)
        bench.service.sessions.of_peer(peer).client = "key"
        said = bench.say(peer, Offer(5, SHA, CHUNK), session)
    assert said == [Taken(5, 0, 0)]
    assert whats(bench) == ["begin"] * MAX_FILES_OF_CLIENT


def test_a_file_that_another_brings_is_told_with_how_far_it_is(bench: FileBench) -> None:
    session = bench.join(b"b", FILES)
    bench.say(b"b", Offer(5, SHA, 3 * CHUNK), session)
    assert bench.tell(CHUNK, later=True) == [Taken(5, CHUNK, 0)]
    assert bench.chunk(b"b", session, 5, CHUNK) == []
    assert whats(bench) == ["begin"]


def test_tiles_of_another_host_are_computed_while_a_file_comes(bench: FileBench) -> None:
    sender = bench.begin()
    other = bench.greet(b"b")
    load_id = bench.load(b"b", other)
    bench.chunk(b"a", sender, 5, 0)
    assert kinds(bench.say(b"b", upscale(1, load_id), other)) == ["Accepted", "Started"]
    assert bench.running


def test_what_the_keeper_refuses_is_told_and_nothing_more_of_it_is_taken(bench: FileBench) -> None:
    session = bench.begin()
    bench.chunk(b"a", session, 5, 0)
    (failed,) = bench.tell(failure=Failure("input", False, "no space left"))
    assert failed == Failed(5, failure="input", message="no space left")
    assert bench.chunk(b"a", session, 5, CHUNK) == []
    assert whats(bench) == ["begin", "chunk"]


# ---------------------------------------------------------------------------------------------- ends


def test_a_host_that_leaves_or_falls_silent_leaves_no_file_behind(bench: FileBench) -> None:
    bench.begin()
    bench.tick(60.0)
    assert whats(bench) == ["begin", "end"]
    assert bench.tell(CHUNK) == []


def test_a_host_that_never_ends_its_file_is_timed_out(bench: FileBench) -> None:
    session = bench.begin()
    for _ in range(6):
        bench.say(b"a", Ping(1), session)
        said = bench.tick(STALL_S / 5)
    assert [message for _, message in said if isinstance(message, Failed)] == [
        Failed(5, failure="transient", retryable=True, message=f"nothing came for {STALL_S:g} s")
    ]
    assert whats(bench) == ["begin", "end"]


def test_a_slow_disk_and_a_pause_of_the_worker_are_not_the_hosts_fault(bench: FileBench) -> None:
    session = bench.begin()
    bench.chunk(b"a", session, 5, 0)
    for _ in range(10):
        bench.say(b"a", Ping(1), session)
        bench.tick(STALL_S / 5)
    assert whats(bench) == ["begin", "chunk"], "the keeper still writes"
    bench.tell(CHUNK)
    bench.tick(0.9 * STALL_S, unheard=0.9 * STALL_S)
    assert whats(bench) == ["begin", "chunk"]


# ---------------------------------------------------------------------------------------------- the clerk


def clerk() -> tuple[Clerk, socket.socket, list[Kept], threading.Semaphore]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5.0)
    reports: list[Kept] = []
    told = threading.Semaphore(0)

    def report(outcome: Kept) -> None:
        reports.append(outcome)
        told.release()

    made = Clerk(theirs.detach(), report)
    return made, ours, reports, told


def test_the_clerk_passes_tasks_on_in_order_and_reports_each_answer() -> None:
    made, end, reports, told = clerk()
    with end, end.makefile("rb") as lines:
        made.start()
        made.put(KeepTask(1, "begin", SHA, 9, "key"))
        assert json.loads(lines.readline()) == {"begin": 1, "sha256": SHA, "size": 9, "client": "key"}
        end.sendall(b'{"offset": 4}\n')
        made.put(KeepTask(1, "chunk", data=b"hello"))
        made.put(KeepTask(1, "end"))
        made.put(KeepTask(2, "begin", SHA, 9, "key"))
        assert json.loads(lines.readline()) == {"chunk": 1, "nbytes": 5}
        assert lines.read(5) == b"hello"
        end.sendall(b'{"failure": "input", "retryable": false, "message": "no"}\n')
        assert json.loads(lines.readline()) == {"end": 1}
        assert json.loads(lines.readline())["begin"] == 2
        end.sendall(b'{"later": 3}\n')
        for _ in range(3):
            assert told.acquire(timeout=5.0)
        assert reports == [Kept(1, 4), Kept(1, failure=Failure("input", False, "no")), Kept(2, 3, later=True)]
    made.put(KeepTask(3, "begin", SHA, 9, "key"))
    assert told.acquire(timeout=5.0)
    assert reports[-1].failure is not None, "the keeper has gone"
    made._lines.close()
    made._socket.close()


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"null", b'{"offset": null}', b'{"failure": "input"}', b"nothing"])
def test_what_is_no_answer_of_a_keeper_fails_its_file_and_no_other(answer: bytes) -> None:
    made, end, reports, told = clerk()
    with end:
        made.start()
        made.put(KeepTask(1, "begin", SHA, 9, "key"))
        end.sendall(answer + b'\n{"offset": 4}\n')
        made.put(KeepTask(2, "begin", SHA, 9, "key"))
        for _ in range(2):
            assert told.acquire(timeout=5.0)
    assert reports[0].failure is not None
    assert reports[0].failure.retryable
    assert reports[1] == Kept(2, 4)
    made.put(KeepTask(3, "end"))
    assert told.acquire(timeout=5.0)
    made._lines.close()
    made._socket.close()


def test_a_worker_answers_while_its_keeper_sits_on_a_chunk(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(5.0)
    with ours, theirs, ours.makefile("rb") as lines:
        os.set_inheritable(theirs.fileno(), True)
        worker = start(files_fd=theirs.fileno(), pass_fds=(theirs.fileno(),))
        host = connect(worker, hello=False)
        assert FILES in host.hello(features=(FILES,)).features
        host.send(Offer(7, SHA, 2 * CHUNK))
        assert json.loads(lines.readline())["begin"] == 1
        ours.sendall(b'{"offset": 0}\n')
        assert host.expect(Taken) == Taken(7, 0, WINDOW)
        data = np.random.default_rng(1).integers(0, 256, 2 * CHUNK, np.uint8)
        for offset in (0, CHUNK):
            host.send(Chunk(7, offset, ()), arrays=[data[offset : offset + CHUNK]])
        host.send(Ping(3))
        assert host.expect(Pong, timeout=2.0).nonce == 3
        host.load("any")
        for offset in (0, CHUNK):
            assert json.loads(lines.readline()) == {"chunk": 1, "nbytes": CHUNK}
            assert lines.read(CHUNK) == data[offset : offset + CHUNK].tobytes()
            ours.sendall(json.dumps({"offset": offset + CHUNK}).encode() + b"\n")
            assert host.expect(Taken).offset == offset + CHUNK
