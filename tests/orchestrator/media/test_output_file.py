import errno
import io
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from upx.errors import OutputError, OutputPathError
from upx.media.encoders import open_encoder
from upx.media.output_file import OutputFile


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def encode(file, picture_format, rows):
    encoder = open_encoder(file, picture_format, width=rows.shape[1], height=len(rows), mode="RGB")
    encoder.write(rows)
    encoder.close()


def test_a_file_appears_whole_and_only_by_its_commit(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with OutputFile(target, fsync=True) as file:
        file.write(b"new ")
        file.write(memoryview(b"bytes"))
        assert target.read_bytes() == b"old"
        assert all(name == "a.png" or name.startswith(".upx-") for name in names(tmp_path))
        assert file.commit() == target
    assert target.read_bytes() == b"new bytes"
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def interrupted():
        with OutputFile(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.png"]


def test_permission_bits_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        with OutputFile(tmp_path / "a.png") as file:
            file.commit()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_a_symbolic_link_is_written_through(tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(folder / "a.png")
    with OutputFile(link) as file:
        file.write(b"x")
        file.commit()
    assert link.is_symlink()
    assert (folder / "a.png").read_bytes() == b"x"


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_must_not_be_overwritten_lets_only_the_first_of_two_writers_have_the_name(
    tmp_path, monkeypatch, links
):
    if not links:

        def no_links(*_, **_more):
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "a.png"
    with OutputFile(target) as first, OutputFile(target) as second:
        first.write(b"first")
        second.write(b"second")
        first.commit(on_exists="error")
        with pytest.raises(OutputError, match="exists already") as caught:
            second.commit(on_exists="error")
    assert "--on-exists" in caught.value.hint
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["a.png"]


def test_the_longest_name_that_a_folder_takes_works_and_one_more_is_an_error(tmp_path):
    with OutputFile(tmp_path / ("n" * 255)) as file:
        file.commit()
    assert names(tmp_path) == ["n" * 255]
    with pytest.raises(OutputError):
        OutputFile(tmp_path / ("n" * 256)).open()


def test_a_place_that_holds_no_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for target, said in (
        (tmp_path / "absent" / "a.png", "folder is not there"),
        (tmp_path / "file" / "a.png", "folder is not there"),
        (tmp_path, "is a directory"),
        (Path("/dev/null"), "not a regular file"),
    ):
        with pytest.raises(OutputPathError, match=said) as caught:
            OutputFile(target).open()
        assert caught.value.hint
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert names(tmp_path) == ["file"]


def test_a_read_only_folder_is_an_error_with_the_next_step():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write everywhere
        try:
            with pytest.raises(OutputError, match="no permission") as caught:
                OutputFile(folder / "a.png").open()
        finally:
            os.seteuid(user)
        assert "-o" in caught.value.hint
        assert names(folder) == []
        folder.chmod(0o755)


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="no space left") as caught, OutputFile(tmp_path / "a.png") as file:
            encode(file, "png", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "free space" in caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == []


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_the_kernels_own_enospc_is_told_for_every_format(tmp_path, monkeypatch, picture_format):
    file = OutputFile(tmp_path / "a").open()
    try:
        file._file.close()
        file._file = io.FileIO("/dev/full", "wb")
        with pytest.raises(OutputError, match="no space left") as caught:
            encode(file, picture_format, np.zeros((64, 64, 3), np.uint8))
        assert caught.value.__cause__.errno == errno.ENOSPC
    finally:
        file.abort()
    assert names(tmp_path) == []


def test_a_rename_that_fails_leaves_nothing(tmp_path):
    target = tmp_path / "a.png"
    with OutputFile(target) as file:
        file.write(b"x")
        target.mkdir()
        with pytest.raises(OutputError):
            file.commit()
    assert names(tmp_path) == ["a.png"]


def test_a_file_that_is_not_open_says_so(tmp_path):
    with pytest.raises(ValueError, match="not open"):
        OutputFile(tmp_path / "a").write(b"x")


def test_of_writers_that_race_for_a_name_each_gets_one_of_its_own(tmp_path):
    target = tmp_path / "a.png"
    with OutputFile(target) as first, OutputFile(target) as second, OutputFile(target) as third:
        for number, file in enumerate((first, second, third)):
            file.write(str(number).encode())
        placed = [file.commit(on_exists="rename") for file in (first, second, third)]
    assert placed == [target, tmp_path / "a_2.png", tmp_path / "a_3.png"]
    assert [path.read_bytes() for path in placed] == [b"0", b"1", b"2"]
    assert names(tmp_path) == ["a.png", "a_2.png", "a_3.png"]


def test_a_name_that_is_too_long_says_so(tmp_path):
    with pytest.raises(OutputError, match="name is too long") as caught:
        OutputFile(tmp_path / ("n" * 256)).open()
    assert "shorter" in caught.value.hint


KILLED = """
import os, signal, sys
from pathlib import Path
from upx.media.output_file import OutputFile
file = OutputFile(Path(sys.argv[1])).open()
file.write(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_not_even_a_kill_leaves_anything(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.png"], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


@pytest.mark.parametrize("how", ["overwrite", "rename"])
def test_without_files_without_a_name_there_is_a_hidden_one_beside(tmp_path, monkeypatch, how):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    with OutputFile(tmp_path / "a.png") as file:
        file.write(b"whole")
        (beside,) = names(tmp_path)
        assert beside.startswith(".upx-")
        file.commit(on_exists=how)
    assert names(tmp_path) == ["a.png"]
    with OutputFile(tmp_path / "b.png") as file:
        file.write(b"half")
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(("there", "placed"), [(["r.png", "r_2.png"], "r_3.png"), (["r_2.png"], "r_2_2.png")])
def test_a_rename_goes_on_with_the_series_it_is_part_of(tmp_path, there, placed):
    for name in there:
        (tmp_path / name).write_bytes(b"old")
    with OutputFile(tmp_path / "r_2.png") as file:
        file.write(b"new")
        assert file.commit(on_exists="rename") == tmp_path / placed
    assert names(tmp_path) == sorted([*there, placed])
