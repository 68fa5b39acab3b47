from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_server import MIB, Content, FaultServer, Route
from fetch_kit import QUICK, Fetcher, url_want

from upx.assets.fetch import FetchProgress, Got, Job, Want, fetch_all, sweep_parts
from upx.errors import CancelledError, FetchError
from upx.locks import HeldLock, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = Content(2 * MIB + 5, seed=8)
LARGE = Content(64 * MIB, seed=9)
CHILD = Path(__file__).with_name("fetch_child.py")
PATH = "/file.bin"


def child(server: FaultServer, content: Content, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), server.url(PATH), content.sha256, str(content.size), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# ------------------------------------------------------------------------------------- processes


def test_a_killed_process_loses_nothing_that_it_wrote(server: FaultServer, tmp_path: Path) -> None:
    reached = threading.Event()
    route = server.add(PATH, Route(LARGE, on_piece=lambda sent: sent >= LARGE.size // 3 and reached.set()))
    with child(server, LARGE, tmp_path) as first:
        assert reached.wait(30)
        first.kill()
    with child(server, LARGE, tmp_path) as second:
        assert second.communicate()[0].splitlines()[-1] == "got"
    assert Fetcher(tmp_path).has(LARGE)
    assert route.sent <= 1.2 * LARGE.size
    assert [seen.status for seen in route.seen] == [200, 206]


def test_of_several_processes_one_fetches_and_the_others_wait(server: FaultServer, tmp_path: Path) -> None:
    route = server.add(PATH, Route(LARGE))
    children = [child(server, LARGE, tmp_path) for _ in range(3)]
    said = [each.communicate(timeout=60)[0].splitlines() for each in children]
    assert sorted(lines[-1] for lines in said) == ["got", "there", "there"]
    assert route.gets == 1


def test_a_wait_for_another_process_is_reported_and_can_be_cancelled(fetcher: Fetcher) -> None:
    want = url_want("http://127.0.0.1:1/", CONTENT)
    fetcher.on_report = lambda progress: fetcher.cancel.set() if progress.state == "waiting" else None
    lock = try_lock(fetcher.parts / f"{want.key}.lock")
    assert lock is not None
    with lock, pytest.raises(CancelledError):
        fetcher.fetch(want)
    assert fetcher.states == ["waiting", "failed"]


def test_where_locks_are_not_enforced_each_takes_a_part_of_its_own(
    server: FaultServer, fetcher: Fetcher, monkeypatch
) -> None:
    def unenforced(path: Path) -> HeldLock:
        path.parent.mkdir(exist_ok=True)
        return HeldLock(path, os.open(path, os.O_RDWR | os.O_CREAT), enforced=False)

    monkeypatch.setattr("upx.assets.fetch.one.try_lock", unenforced)
    route = server.add(PATH, Route(CONTENT))
    want = url_want(server.url(PATH), CONTENT)
    fetcher.leave(want, b"somebody else's, who writes at the same time")
    fetcher.fetch(want)
    assert fetcher.has(CONTENT)
    assert "Range" not in route.seen[0].headers
    assert fetcher.part(want).read_bytes().startswith(b"somebody")


def test_what_a_killed_process_left_of_a_file_that_is_there_is_removed(fetcher: Fetcher) -> None:
    want = url_want("http://127.0.0.1:1/", CONTENT)
    fetcher.leave(want, b"x", source="somewhere")
    fetcher.taken.write_bytes(CONTENT.bytes)
    assert fetcher.fetch(want) is None
    assert list(fetcher.parts.iterdir()) == []


def test_importing_it_loads_neither_ssl_nor_http() -> None:
    code = (
        "import sys, upx.assets.fetch; print([m for m in ('ssl', 'http.client', 'urllib.request') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------- several at once


class Shelf:
    """Jobs whose files are taken to ``folder``."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.folder = folder
        self.server = server
        self.said: list[FetchProgress] = []

    def job(self, number: int, *, size: int = 200_000, **route: object) -> Job:
        content = Content(size, seed=number)
        self.server.add(f"/{number}.bin", Route(content, **route))  # pyright: ignore[reportArgumentType]
        want = url_want(self.server.url(f"/{number}.bin"), content)
        target = self.folder / want.key
        return Job(want, target.exists, lambda got: self.take(got, target))

    def take(self, got: Got, target: Path) -> None:
        got.path.rename(target)

    def has(self, job: Job) -> bool:
        return (self.folder / job.want.key).exists()

    def fetch(self, jobs: list[Job], report: Callable[[FetchProgress], None] | None = None, **more: object):
        return fetch_all(jobs, self.folder / "parts", QUICK, report=report or self.said.append, **more)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def shelf(tmp_path: Path, server: FaultServer) -> Shelf:
    return Shelf(tmp_path, server)


def test_several_files_come_and_one_that_fails_stops_no_other(shelf: Shelf) -> None:
    jobs = [shelf.job(number, statuses=[404] if number in {2, 5} else []) for number in range(9)]
    failures = shelf.fetch(jobs)
    assert [want for want, _ in failures] == [jobs[2].want, jobs[5].want]
    assert all(isinstance(error, FetchError) for _, error in failures)
    assert [shelf.has(job) for job in jobs] == [number not in {2, 5} for number in range(9)]
    assert {progress.key for progress in shelf.said} == {job.want.key for job in jobs}


def test_no_more_are_fetched_at_once_than_is_asked_for(shelf: Shelf) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def report(progress: FetchProgress) -> None:
        assert not lock.locked()
        with lock:
            now[0] += (progress.state == "resolving") - (progress.state in {"done", "failed"})
            most[0] = max(most[0], now[0])

    assert shelf.fetch([shelf.job(number) for number in range(8)], report, at_once=2) == []
    assert most[0] == 2


def test_the_same_file_twice_is_fetched_once(shelf: Shelf) -> None:
    job = shelf.job(1)
    assert shelf.fetch([job, job, job]) == []
    assert shelf.server.routes["/1.bin"].gets == 1


def test_a_cancel_stops_all_and_keeps_what_came(shelf: Shelf) -> None:
    cancel = threading.Event()
    jobs = [shelf.job(number, size=MIB, stalls=[300_000] * 9) for number in range(6)]
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(CancelledError):
        shelf.fetch(jobs, cancel=cancel)
    kept = [path.stat().st_size for path in (shelf.folder / "parts").glob("*.part")]
    assert kept
    assert max(kept) >= 300_000
    assert not any(shelf.has(job) for job in jobs)


def test_ctrl_c_ends_the_threads_and_is_raised(shelf: Shelf) -> None:
    cancel = threading.Event()
    jobs = [shelf.job(number, size=MIB, stalls=[300_000] * 9) for number in range(6)]
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        shelf.fetch(jobs, cancel=cancel)
    assert cancel.is_set()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("upx-fetch")]


def test_an_error_that_is_none_of_ours_is_raised(shelf: Shelf, monkeypatch) -> None:
    def broken(_got: Got, _target: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(shelf, "take", broken)
    with pytest.raises(ZeroDivisionError):
        shelf.fetch([shelf.job(1), shelf.job(2)])


# ------------------------------------------------------------------------------------- old parts


def test_old_parts_that_nobody_fetches_are_swept(fetcher: Fetcher) -> None:
    old, held, young = (Want(str(number), (), sha256=str(number) * 64) for number in range(3))
    for want in (old, held, young):
        fetcher.leave(want, b"x", source="somewhere")
        (fetcher.parts / f"{want.key}.lock").touch()
    (fetcher.parts / f".{old.key}.part.json.77-abcd").touch()
    long_ago = time.time() - 1000
    for want in (old, held):
        os.utime(fetcher.part(want), (long_ago, long_ago))
    lock = try_lock(fetcher.parts / f"{held.key}.lock")
    assert lock is not None
    with lock:
        assert sweep_parts(fetcher.parts, 500) == [fetcher.part(old)]
    left = {path.name.partition(".")[0] for path in fetcher.parts.iterdir()}
    assert left == {held.key, young.key}
    assert sweep_parts(fetcher.folder / "nowhere", 0) == []
