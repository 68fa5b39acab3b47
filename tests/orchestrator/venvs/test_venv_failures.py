from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from venv_kit import House, Index, make_settings, make_wheel

from upx.errors import (
    DiskFullError,
    EnvBuildError,
    HashMismatchError,
    NetworkError,
    NoSuchVersionError,
    PythonMissingError,
)
from upx.venvs import uv as uv_module
from upx.venvs.builder import EnvBuilder
from upx.venvs.failures import Kind, classify
from upx.venvs.process import Surroundings, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.specs import EnvSpec

PYENV_NOISE = (
    "warning: Failed to inspect Python interpreter from search path at `/opt/pyenv/shims/python3.10`\n"
    "  cause: Querying Python at `/opt/pyenv/shims/python3.10` failed with exit status exit status: 127\n"
    "         pyenv: python3.10: command not found\n"
)


def refuse(builder: EnvBuilder, spec: EnvSpec, error: type[EnvBuildError]) -> EnvBuildError:
    """The error of a build that leaves nothing behind."""
    with pytest.raises(error) as caught:
        builder.ensure(spec)
    assert type(caught.value) is error
    assert caught.value.exit_code == 5
    assert caught.value.hint
    assert builder.list_envs() == []
    return caught.value


def test_one_wrong_hash_builds_nothing_and_names_the_package(house: House, builder: EnvBuilder):
    error = refuse(builder, house.spec(wrong="beta"), HashMismatchError)
    assert "beta==1.0" in str(error)
    assert error.package == "beta==1.0"
    assert "Hash mismatch" in error.log
    with Index(house) as index:
        online = EnvBuilder(make_settings(house.root, offline=False, index=index.url))
        assert refuse(online, house.spec(wrong="beta"), HashMismatchError).package == "beta==1.0"


def test_a_damaged_wheel_is_told_from_a_wrong_hash(house: House, builder: EnvBuilder):
    spec = house.spec()
    body = house.wheels[0].read_bytes()
    house.wheels[0].write_bytes(body[: len(body) // 2])
    assert "alpha" in str(refuse(builder, spec, HashMismatchError))


def test_a_version_that_no_index_has_is_named(house: House):
    spec = house.spec()
    spec.lock.write_text(spec.lock.read_text().replace("beta==1.0", "beta==9.9"))
    with Index(house) as index:
        online = EnvBuilder(make_settings(house.root, offline=False, index=index.url))
        assert "beta==9.9" in str(refuse(online, spec, NoSuchVersionError))


def test_an_index_that_refuses_connections_is_a_network_error(house: House):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://user:secret@127.0.0.1:{held.getsockname()[1]}/simple"
        error = refuse(EnvBuilder(make_settings(house.root, offline=False, index=url)), house.spec(), NetworkError)
    for word in ("UPX_INDEX", "UPX_WHEELHOUSE", "HTTPS_PROXY", "--offline"):
        assert word in error.hint
    assert "secret" not in error.log + str(error)


def test_a_download_that_breaks_off_is_a_network_error(house: House, monkeypatch: pytest.MonkeyPatch):
    impatient = {"UV_HTTP_RETRIES": "0"}  # its pauses between retries add up to 18 s
    monkeypatch.setattr("upx.venvs.build.uv_env", lambda settings: {**uv_module.uv_env(settings), **impatient})
    with Index(house, "cut") as index:
        refuse(EnvBuilder(make_settings(house.root, offline=False, index=index.url)), house.spec(), NetworkError)


def test_a_wheelhouse_that_holds_everything_needs_no_index(house: House):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/simple"
        settings = make_settings(house.root, offline=False, index=url, wheelhouse=house.folder)
        started = time.monotonic()
        EnvBuilder(settings).ensure(house.spec())
        assert time.monotonic() - started < 5


def test_what_the_wheelhouse_lacks_comes_from_the_index(house: House, tmp_path: Path):
    spec = house.spec()
    part = tmp_path / "part"
    part.mkdir()
    (part / house.wheels[0].name).write_bytes(house.wheels[0].read_bytes())
    with Index(house) as index:
        settings = make_settings(house.root, offline=False, index=index.url, wheelhouse=part)
        assert set(EnvBuilder(settings).ensure(spec).versions) == {"alpha", "beta"}


def test_offline_and_uncached_says_what_to_bring(house: House):
    error = refuse(EnvBuilder(make_settings(house.root)), house.spec(), EnvBuildError)
    assert "alpha==1.0" in str(error)
    assert "UPX_WHEELHOUSE" in error.hint
    assert "tiny.lock" in error.hint


def test_offline_from_uvs_cache_needs_no_wheelhouse(house: House, builder: EnvBuilder):
    with Index(house) as index:
        EnvBuilder(make_settings(house.root, offline=False, index=index.url)).ensure(house.spec("first"))
        offline = EnvBuilder(make_settings(house.root, offline=False, index=index.url))
        assert offline.check(offline.ensure(house.spec("second"), offline=True), hashes=True) == []


@pytest.mark.parametrize("request_", ["3.77", "/nowhere/python"])
def test_a_python_that_is_not_there_is_named(request_: str, house: House):
    builder = EnvBuilder(make_settings(house.root, python=request_, wheelhouse=house.folder))
    error = refuse(builder, house.spec(), PythonMissingError)
    assert request_ in str(error)
    assert "UPX_PYTHON" in error.hint


def test_a_lock_without_hashes_is_refused(house: House, builder: EnvBuilder):
    spec = house.spec()
    spec.lock.write_text("alpha==1.0\n")
    error = refuse(builder, spec, EnvBuildError)
    assert "alpha==1.0 has no usable hash" in str(error)


def test_a_lock_that_is_not_there_is_named(house: House, builder: EnvBuilder):
    spec = house.spec()
    spec.lock.unlink()
    assert "tiny.lock" in str(refuse(builder, spec, EnvBuildError))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 2 MB at ``folder``; False where the machine lets nobody mount one."""
    folder.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "none", folder]
    done = subprocess.run(mount, check=False, capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["/bin/umount", folder], check=True)


def test_a_full_disk_says_how_much_was_written_and_is_free(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    house.wheels.append(make_wheel(house.folder, "large", data=os.urandom(4_000_000)))
    with small_disk(tmp_path / "disk") as real:
        if not real:
            said = "error: Failed to install: large\\n  cause: No space left on device (os error 28)"
            fake_uv(tmp_path, monkeypatch, f"mkdir -p venv; head -c 1000000 /dev/zero >venv/x; printf '{said}'; exit 2")
        settings = make_settings(house.root, data_dir=tmp_path / "disk" / "data", wheelhouse=house.folder)
        error = refuse(EnvBuilder(settings), house.spec(), DiskFullError)
    assert isinstance(error, DiskFullError)
    assert error.needed > 1_000_000 or not real
    assert "upx env prune" in error.hint
    assert "No space left" in error.log


def test_a_data_folder_that_cannot_be_made_is_an_error_of_ours(house: House):
    (house.root / "file").touch()
    settings = make_settings(house.root, data_dir=house.root / "file" / "data", wheelhouse=house.folder)
    with pytest.raises(EnvBuildError, match="Not a directory") as caught:
        EnvBuilder(settings).ensure(house.spec())
    assert "UPX_HOME" in caught.value.hint


def test_a_disk_that_is_full_for_our_own_files_is_said_to_be_full(
    house: House, builder: EnvBuilder, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("upx.venvs.build.write_marker", full)
    refuse(builder, house.spec(), DiskFullError)


def fake_uv(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "fake-uv"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr("upx.venvs.build.find_uv", lambda _settings: path)


def test_a_uv_that_is_killed_is_said_to_have_been(
    house: House, builder: EnvBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_uv(tmp_path, monkeypatch, "kill -9 $$")
    assert "killed" in str(refuse(builder, house.spec(), EnvBuildError))


def test_an_unknown_failure_keeps_uvs_last_words_without_passwords(
    house: House, builder: EnvBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_uv(tmp_path, monkeypatch, "echo 'error: what is http://me:secret@there/x' >&2; exit 2")
    error = refuse(builder, house.spec(), EnvBuildError)
    assert error.log == "error: what is http://***@there/x"
    assert "upx setup tiny -v" in error.hint


def test_a_uv_that_cannot_be_started_is_an_error_of_ours(
    house: House, builder: EnvBuilder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("upx.venvs.build.find_uv", lambda _settings: Path("/nowhere/uv"))
    assert "/nowhere/uv cannot be started" in str(refuse(builder, house.spec(), EnvBuildError))


def test_a_missing_uv_says_how_to_install_it(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "uv", None)
    with pytest.raises(EnvBuildError, match="uv is not installed") as caught:
        uv_module.find_uv(make_settings(house.root, child_env={"PATH": ""}))
    assert "pip install uv" in caught.value.hint


def test_a_child_that_outlives_its_deadline_is_ended_with_its_children(tmp_path: Path):
    where = Surroundings({"PATH": os.environ["PATH"]}, tmp_path)
    with pytest.raises(EnvBuildError, match="had not ended after 0 s"):
        run(["sh", "-c", "sleep 987 & sleep 987"], where, timeout=0.3)
    assert not [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[-1:] == ["987"]]


@pytest.mark.parametrize(
    ("said", "kind", "package"),
    [
        (
            "error: Failed to download `numpy==2.4.6`\n  cause: Hash mismatch for `numpy==2.4.6`",
            Kind.HASH,
            "numpy==2.4.6",
        ),
        ("  cause: Because numpy==9.9 and you require numpy==9.9, No solution found", Kind.VERSION, "numpy==9.9"),
        ("error: Request failed after 3 retries\n  cause: dns error", Kind.NETWORK, ""),
        ("  cause: failed to copy: No space left on device (os error 28)", Kind.DISK, ""),
        ("  cause: There is not enough space on the disk. (os error 112)", Kind.DISK, ""),
        ("error: No interpreter found for Python 3.11 in managed installations", Kind.PYTHON, ""),
        ("error: something new", Kind.OTHER, ""),
    ],
)
def test_the_words_of_uv_are_told_apart_amid_the_noise_of_other_pythons(said: str, kind: Kind, package: str):
    failure = classify(PYENV_NOISE + said, code=2)
    assert (failure.kind, failure.package) == (kind, package)
