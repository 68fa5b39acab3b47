"""A stamp saves reading, and never says of other bytes that they are the same."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from upx.assets import digests
from upx.assets.digests import SMALL, Stamps, sha256_of

OLD_S = 60


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(SMALL + 5))
    return path


@pytest.fixture
def reads(monkeypatch):
    """How often a file was read whole."""
    counted = []

    def counting(path, **more):
        counted.append(path)
        return sha256_of(path, **more)

    monkeypatch.setattr(digests, "sha256_of", counting)
    return counted


@pytest.fixture
def later(monkeypatch):
    """The clock, a minute ahead: a file that was just written is an old one."""
    now = time.time
    monkeypatch.setattr(digests.time, "time", lambda: now() + OLD_S)


def expected(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_untouched_file_is_read_once(large, reads, later, tmp_path):
    for _ in range(3):
        assert Stamps(tmp_path / "stamps").sha256(large) == expected(large)
    assert len(reads) == 1


def test_one_changed_byte_is_seen_even_where_size_and_mtime_are_put_back(large, reads, later, tmp_path):
    stamps = Stamps(tmp_path / "stamps")
    before, status = stamps.sha256(large), large.stat()
    with large.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (large.stat().st_size, large.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert stamps.sha256(large) == expected(large) != before


def test_another_file_in_its_place_is_read(large, later, tmp_path):
    stamps = Stamps(tmp_path / "stamps")
    stamps.sha256(large)
    other = tmp_path / "other"
    other.write_bytes(os.urandom(SMALL + 5))
    other.replace(large)
    assert stamps.sha256(large) == expected(large)


def test_a_file_that_was_just_written_gets_no_stamp(large, reads, tmp_path):
    stamps = Stamps(tmp_path / "stamps")
    stamps.sha256(large)
    stamps.sha256(large)
    assert len(reads) == 2


def test_a_stamp_of_another_boot_is_not_believed(large, reads, later, tmp_path, monkeypatch):
    Stamps(tmp_path / "stamps").sha256(large)
    monkeypatch.setattr(digests, "boot_id", lambda: "another boot")
    Stamps(tmp_path / "stamps").sha256(large)
    assert len(reads) == 2


def test_without_a_name_for_the_boot_every_file_is_read(large, reads, later, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "boot_id", lambda: "")
    for _ in range(2):
        Stamps(tmp_path / "stamps").sha256(large)
    assert len(reads) == 2
    assert not (tmp_path / "stamps").exists()


def test_who_believes_no_stamp_reads_and_stamps_anew(large, reads, later, tmp_path):
    Stamps(tmp_path / "stamps").sha256(large)
    Stamps(tmp_path / "stamps", believe=False).sha256(large)
    Stamps(tmp_path / "stamps").sha256(large)
    assert len(reads) == 2


@pytest.mark.parametrize("kept", ["[]", "null", '{"facts": []}', '{"sha256": 5}', "{"])
def test_a_stamp_of_another_shape_means_reading(large, reads, later, tmp_path, kept):
    stamps = Stamps(tmp_path / "stamps")
    stamps.sha256(large)
    for path in (tmp_path / "stamps").iterdir():
        path.write_text(kept)
    assert stamps.sha256(large) == expected(large)
    assert len(reads) == 2


def test_a_folder_that_cannot_be_written_costs_time_alone(large, reads, later, tmp_path):
    (tmp_path / "stamps").write_text("a file where the folder would be")
    for _ in range(2):
        assert Stamps(tmp_path / "stamps").sha256(large) == expected(large)
    assert len(reads) == 2
