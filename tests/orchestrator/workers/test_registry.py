"""Registry entries: alive is who holds the lock; what the dead leave behind is swept, and nothing else."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from upx import locks
from upx.errors import WorkerStartError
from upx.workers import endpoints, machine, process, registry

IDENTITY = "ab" * 32


@pytest.fixture
def entry(settings):
    """An entry that this process holds, filled in as a worker does."""
    fd, path = registry.create(settings, IDENTITY, 0, backend="nearest", endpoint="ipc:///x.sock", tied=False)
    yield fd, path
    path.unlink(missing_ok=True)
    with suppress(OSError):  # closed by the test
        os.close(fd)


def fill(fd: int, **fields) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps({"schema": 1, "endpoint": "ipc:///y.sock", "tied": False, **fields}).encode(), 0)


def test_an_entry_that_is_not_filled_in_is_starting_and_alive(settings, entry) -> None:
    (info,) = registry.list_workers(settings)
    assert (info.alive, info.starting, info.backend, info.tied) == (True, True, "nearest", False)
    assert info.name == "nearest-abababab-0"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"pid": "x", "hosts": [], "endpoint": 3}'])
def test_an_entry_that_cannot_be_read_counts_as_starting(settings, entry, content) -> None:
    fd, _ = entry
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)
    (info,) = registry.list_workers(settings)
    assert (info.alive, info.starting) == (True, True)


def test_an_entry_tells_what_the_worker_wrote(settings, entry) -> None:
    fd, _ = entry
    fill(fd, pid=os.getpid(), model="m", device="cuda:0", hosts=0, last_used=time.time() - 5, idle_s=300, backend="b")
    (info,) = registry.list_workers(settings)
    assert (info.pid, info.model, info.device, info.idle_s, info.starting) == (os.getpid(), "m", "cuda:0", 300, False)
    assert 4.5 < info.idle < 7
    assert info.memory > 0


def test_a_dead_entry_is_swept_with_its_socket(settings, entry) -> None:
    fd, path = entry
    folder = endpoints.socket_folder(settings)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "dead.sock"))
    fill(fd, endpoint=f"ipc://{folder}/dead.sock")
    os.close(fd)
    assert registry.list_workers(settings) == []
    assert not path.exists()
    assert list(folder.iterdir()) == []


def test_a_successor_with_the_same_name_and_inode_is_left_alone(settings, entry) -> None:
    fd, path = entry
    fill(fd, pid=2)
    old = registry.read(path)
    fill(fd, pid=os.getpid())
    assert not registry.is_its(old)
    registry.discard(old)
    assert path.exists()


def test_a_successor_that_has_no_process_yet_is_left_alone(settings, entry) -> None:
    fd, path = entry
    starting = registry.read(path)
    registry.discard(starting)
    assert path.exists()
    fill(fd, pid=2)
    old = registry.read(path)
    os.ftruncate(fd, 0)
    registry.discard(old)
    assert path.exists()


def test_a_successors_socket_is_left_alone_when_the_dead_had_not_bound_yet(settings, entry) -> None:
    fd, path = entry
    folder = endpoints.socket_folder(settings)
    with socket.socket(socket.AF_UNIX) as before, socket.socket(socket.AF_UNIX) as after:
        before.bind(str(folder / "before.sock"))
        after.bind(str(folder / "after.sock"))
    fill(fd, endpoint="", planned=f"ipc://{folder}/before.sock")
    dead = registry.read(path)
    fill(fd, endpoint="", planned=f"ipc://{folder}/after.sock")
    registry.discard(dead)
    assert path.exists()
    assert [each.name for each in folder.iterdir()] == ["after.sock"]


def test_only_a_socket_is_ever_removed(tmp_path) -> None:
    precious = tmp_path / "precious.sock"
    precious.write_text("no socket")
    endpoints.remove_socket(f"ipc://{precious}")
    assert precious.exists()


def test_an_entry_in_the_making_is_not_swept(settings) -> None:
    with registry.spawn_lock(settings, IDENTITY) as held:
        assert held
        path = registry.folder(settings) / f"{IDENTITY}-0.json"
        path.touch()  # made, but not locked yet
        assert registry.list_workers(settings) == []
        assert path.exists()
    registry.list_workers(settings)
    assert not path.exists()


def test_the_spawn_lock_is_held_by_one_at_a_time(settings) -> None:
    with registry.spawn_lock(settings, IDENTITY) as first, registry.spawn_lock(settings, IDENTITY) as second:
        assert (first, second) == (True, False)
    with registry.spawn_lock(settings, IDENTITY) as again:
        assert again


def test_two_who_look_do_not_take_each_other_for_the_worker(tmp_path) -> None:
    path = tmp_path / "entry"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    assert locks.take(fd, shared=True)
    assert not locks.is_locked(path, shared=True)
    os.close(fd)


def test_entries_of_another_boot_are_swept_when_they_are_old_and_nobody_holds_them(settings, entry) -> None:
    other = settings.workers_dir / "another-boot"
    other.mkdir()
    (other / f"{IDENTITY}-0.json").touch()
    registry.list_workers(settings)
    assert other.exists()
    for path in (other / f"{IDENTITY}-0.json", other):
        os.utime(path, (0, 0))
    held = os.open(other / f"{IDENTITY}-0.json", os.O_RDWR)
    locks.take(held)
    registry.list_workers(settings)
    assert other.exists(), "a shared home: its worker lives on another machine"
    os.close(held)
    registry.list_workers(settings)
    assert not other.exists()


def test_sockets_lie_in_a_folder_that_is_ours_alone_and_short(settings, tmp_path) -> None:
    folder = endpoints.socket_folder(settings)
    assert folder == settings.runtime_dir
    assert folder.stat().st_mode & 0o777 == 0o700
    long = replace(settings, runtime_dir=tmp_path / ("x" * 120))
    fallback = endpoints.socket_folder(long)
    try:
        assert fallback.parent == type(fallback)("/tmp")  # noqa: S108
        assert len(endpoints.new_endpoint(long, "ipc")) < 107
        fallback.chmod(0o755)
        with pytest.raises(WorkerStartError, match="not ours alone"):
            endpoints.socket_folder(long)
    finally:
        fallback.rmdir()


def test_a_runtime_folder_that_others_can_enter_is_not_used(settings) -> None:
    folder = endpoints.socket_folder(settings)
    folder.chmod(0o777)
    other = endpoints.socket_folder(settings)
    assert other != folder
    other.rmdir()


def test_a_folder_that_is_a_link_is_not_used(settings, tmp_path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    settings.runtime_dir.symlink_to(real)
    other = endpoints.socket_folder(settings)
    assert other != settings.runtime_dir
    other.rmdir()


def test_a_pid_that_is_another_process_by_now_is_not_adopted() -> None:
    assert process.adopt(os.getpid(), machine.start_ticks(os.getpid()) + 1) is None
    assert process.adopt(0, 0) is None
    mine = process.adopt(os.getpid(), machine.start_ticks(os.getpid()))
    assert mine is not None
    assert not mine.ended()
    mine.release()


def test_a_log_is_rotated_by_size_and_only_the_latest_are_kept(tmp_path) -> None:
    from upx.workers import logs

    fd, _ = logs.open_log(tmp_path, "worker")
    os.write(fd, b"old words\n" + b"x" * logs.ROTATE_BYTES)
    os.close(fd)
    fd, second = logs.open_log(tmp_path, "worker")
    assert (tmp_path / "worker.log.1").exists()
    os.write(fd, b"\n".join(b"line %d" % number for number in range(50)))
    os.close(fd)
    assert second.tail() == tuple(f"line {number}" for number in range(30, 50))
    fd, third = logs.open_log(tmp_path, "worker")
    os.write(fd, b"\nnew words\n")
    os.close(fd)
    assert third.tail() == ("new words",), "what the worker before it wrote is not its own"
    for number in range(logs.MOST_FILES + 10):
        (tmp_path / f"other{number}.log").touch()
    os.close(logs.open_log(tmp_path, "worker")[0])
    assert len(list(tmp_path.iterdir())) <= logs.MOST_FILES + 1


@pytest.mark.parametrize("number", ["1e400", "-1", "99999999999999999999", "NaN", "-Infinity", "4294967296"])
def test_numbers_that_no_worker_writes_are_taken_for_unknown(settings, entry, number) -> None:
    fd, _ = entry
    os.ftruncate(fd, 0)
    keys = ("pid", "hosts", "last_used", "idle_s", "started", "start_ticks")
    os.pwrite(fd, f"{{{', '.join(f'{chr(34)}{key}{chr(34)}: {number}' for key in keys)}}}".encode(), 0)
    (info,) = registry.list_workers(settings)
    assert info.pid == 0
    json.dumps([info.idle, info.idle_s, info.started, info.hosts], allow_nan=False)


def test_a_folder_named_like_an_entry_harms_nobody(settings, entry) -> None:
    _, path = entry
    path.with_name(f"{IDENTITY}-1.json").mkdir()
    assert [info.ordinal for info in registry.list_workers(settings)] == [0]
    assert [info.ordinal for info in registry.entries(settings, IDENTITY)] == [0]


def test_a_lock_that_cannot_be_written_can_still_be_shared(tmp_path, monkeypatch) -> None:
    path = tmp_path / "lock"
    path.touch()
    real = os.open

    def read_only(name, flags, *mode):
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", str(name))
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    lock = locks.try_lock(path, shared=True)
    assert lock is not None
    lock.close()
    with pytest.raises(OSError, match="No such file"):
        locks.try_lock(tmp_path / "none", shared=True)
