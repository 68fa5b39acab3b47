"""Torch's containers are looked at without unpickling: what could do harm on the way is refused."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upx.assets.inspect.torchfile import check_container
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


def zipped(members: dict[str, bytes], *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in {"w/data.pkl": b"\x80\x02}.", **members}.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=archive.compression)
    return buffer.getvalue()


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UnusableWeightsError) as caught:
        check_container(path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_zip_and_a_bare_pickle_are_told_apart(path: Path) -> None:
    path.write_bytes(zipped({"w/data/0": bytes(100), "w/version": b"3\n"}))
    assert check_container(path) == "zip"
    path.write_bytes(b"\x80\x02\x8a\nrest")
    assert check_container(path) == "pickle"


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x09", b"PK", b"GGUF", b"(dp0\n.", b"\x89PNG\r\n"])
def test_what_torch_did_not_save_is_refused(path: Path, content: bytes) -> None:
    assert "is no file that torch saved" in refused(path, content)


def test_a_tar_is_refused(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    assert "is a tar" in refused(path, path.read_bytes())


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../out", "w/../../out", "w\\..\\out", "C:evil", "c:/evil", "w/a\nb", "..", "w/.."]
)
def test_a_member_whose_name_leads_out_is_refused_by_its_name(path: Path, name: str) -> None:
    assert repr(name) in refused(path, zipped({name: b"x"}))


def test_a_name_that_ends_for_one_reader_only_is_refused(path: Path) -> None:
    content = zipped({"w/dataXpkl": b"x"}).replace(b"w/dataXpkl", b"w/data\0pkl")
    assert "leads out" in refused(path, content)


def test_a_zip_bomb_is_refused_and_a_zip_that_does_not_swell_is_not(path: Path) -> None:
    assert "would swell" in refused(path, zipped({"w/data/0": bytes(10_000_000)}, packed=True))
    path.write_bytes(zipped({"w/data/0": bytes(10_000_000)}))
    assert check_container(path) == "zip"


def test_members_that_overlap_are_refused(path: Path) -> None:
    content = bytearray(zipped({"w/data/0": b"a" * 50, "w/data/1": b"b" * 50}))
    # The directory's third entry says where the second one's data lies.
    third = content.rindex(b"PK\x01\x02")
    second = content.rindex(b"PK\x01\x02", 0, third)
    content[third + 42 : third + 46] = content[second + 42 : second + 46]
    message = refused(path, bytes(content))
    assert "overlap" in message
    assert "w/data/1" in message


def test_a_stored_member_with_two_sizes_is_refused(path: Path) -> None:
    content = bytearray(zipped({"w/data/0": b"a" * 50}))
    last = content.rindex(b"PK\x01\x02")
    content[last + 24 : last + 28] = struct.pack("<I", 5_000)
    assert "two sizes: 'w/data/0'" in refused(path, bytes(content))


def test_an_encrypted_member_is_refused(path: Path) -> None:
    content = bytearray(zipped({"w/data/0": b"a" * 50}))
    last = content.rindex(b"PK\x01\x02")
    content[last + 8] |= 1
    assert "encrypted member: 'w/data/0'" in refused(path, bytes(content))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/data.pkl", b"\x80\x02].")
    assert "two members of one name: 'w/data.pkl'" in refused(path, path.read_bytes())


def test_something_before_the_first_member_is_refused(path: Path) -> None:
    assert refused(path, b"PK\x03\x04 and a program" + zipped({}))


def test_a_zip_that_torch_did_not_write_is_refused(path: Path) -> None:
    assert "no member is data.pkl" in refused(path, zipped({}).replace(b"w/data.pkl", b"w/data.pnl"))


def test_a_zip_that_was_cut_anywhere_is_refused(path: Path) -> None:
    content = zipped({"w/data/0": bytes(300)})
    for length in range(4, len(content)):
        refused(path, content[:length])
    middle = content[:80] + content[200:]
    assert refused(path, middle)


def test_more_than_a_million_members_are_refused_before_they_are_read(path: Path) -> None:
    content = bytearray(zipped({}))
    end = content.rindex(b"PK\x05\x06")
    directory = bytes(content[content.index(b"PK\x01\x02") : end])
    copies = 1_000_001
    tail = bytearray(content[end:])
    tail[12:16] = struct.pack("<I", len(directory) * copies)
    path.write_bytes(bytes(content[:end]) + directory * (copies - 1) + bytes(tail))
    with pytest.raises(UnusableWeightsError, match="more than 1000000 members"):
        check_container(path)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.integers(0, 400))
def test_mangled_zips_are_read_or_refused_and_nothing_else(
    at: int, flip: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mangled.pth"
    content = bytearray(zipped({"w/data/0": bytes(60)}, packed=bool(at % 2)))
    content[at % len(content)] ^= flip
    path.write_bytes(bytes(content[: len(content) - cut % 3]))
    try:
        check_container(path)
    except UnusableWeightsError:
        return
