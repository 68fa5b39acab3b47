"""A safetensors file is exactly what its header says, or it is refused with one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upx.assets.inspect.inventory import Tensor
from upx.assets.inspect.safetensors import read_header
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from pathlib import Path

A: dict[str, Any] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B: dict[str, Any] = {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]}


def raw(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def whole(table: dict[str, Any], size: int = 26) -> bytes:
    return raw(json.dumps(table).encode(), bytes(size))


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UnusableWeightsError) as caught:
        read_header(path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


def test_names_dtypes_shapes_and_metadata_are_read(path: Path) -> None:
    path.write_bytes(whole({"__metadata__": {"format": "pt"}, "b": B, "a": A}))
    found = read_header(path)
    (group,) = found.groups
    assert (found.format, group.path, found.metadata) == ("safetensors", "", {"format": "pt"})
    assert group.tensors == {"a": Tensor("a", "F32", (2, 3)), "b": Tensor("b", "BF16", ())}


def test_a_file_without_tensors_and_one_with_empty_tensors_are_whole(path: Path) -> None:
    path.write_bytes(whole({}, 0))
    assert read_header(path).groups[0].tensors == {}
    path.write_bytes(whole({"a": A, "none": {"dtype": "I64", "shape": [0, 4], "data_offsets": [24, 24]}, "b": B}))
    assert len(read_header(path).groups[0].tensors) == 3


@pytest.mark.parametrize("length", [10 * 2**30, 2**64 - 1, 100_000_001])
def test_an_absurd_header_length_is_refused_before_anything_is_read(path: Path, length: int) -> None:
    with path.open("wb") as file:
        file.write(raw(b"{}", length=length))
        # Sparse: as large as it claims, so that only the limit can refuse it.
        file.truncate(min(length + 8, 11 * 2**30))
    with pytest.raises(UnusableWeightsError, match=f"header would be {length} bytes"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "shorter than the length"),
        (b"\x02\0\0\0", "shorter than the length"),
        (raw(b"{}", length=3), "longer than the file"),
        (raw(b"[]"), "no JSON object"),
        (raw(b" {}"), "no JSON object"),
        (raw(b"{"), "no JSON object"),
        (raw(b"{" + b'"a":{' * 100_000), "no JSON object"),
        (raw(b'{"\xff":1}'), "no JSON object"),
        (raw(b'{"a":NaN}'), "holds NaN"),
        (raw(b'{"a":' + b"9" * 5_000 + b"}"), "no JSON object"),
        (raw(b'{"a":1,"a":2}'), "'a' twice"),
        (raw(b'{"a":{"dtype":"F32","dtype":"F64"}}'), "'dtype' twice"),
        (raw(b'{"__metadata__":{"a":1}}'), "metadata"),
        (raw(b'{"__metadata__":[]}'), "metadata"),
        (raw(b'{"a":5}'), "'a' does not say"),
    ],
)
def test_a_header_that_is_none_is_refused(path: Path, content: bytes, says: str) -> None:
    assert says in refused(path, content)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"dtype": "F33"}, "'F33'"),
        ({"dtype": 5}, "'5'"),
        ({"shape": [2, -3]}, "no shape"),
        ({"shape": [2.0, 3]}, "no shape"),
        ({"shape": [True, 6]}, "no shape"),
        ({"shape": "23"}, "no shape"),
        ({"shape": [2**63, 1]}, "no shape"),
        ({"shape": [1] * 65}, "no shape"),
        ({"shape": [2, 4]}, "takes 24 bytes"),
        ({"dtype": "F64"}, "takes 24 bytes"),
        ({"data_offsets": [-8, 16]}, "offsets"),
        ({"data_offsets": [0, 24, 48]}, "offsets"),
        ({"data_offsets": [24, 0]}, "takes -24 bytes"),
        ({"data_offsets": [2, 26]}, "behind a gap"),
        ({"extra": 1}, "does not say"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_by_its_name(path: Path, entry: dict[str, Any], says: str) -> None:
    message = refused(path, whole({"the.name": {**A, **entry}}, 24))
    assert says in message
    assert "the.name" in message


def test_tensors_that_overlap_or_leave_a_hole_are_refused(path: Path) -> None:
    assert "'b' overlaps" in refused(path, whole({"a": A, "b": {**B, "data_offsets": [22, 24]}}, 24))
    assert "'b' overlaps" in refused(path, whole({"a": A, "b": A | {"data_offsets": [0, 24]}}, 24))
    assert "'b' lies behind a gap" in refused(path, whole({"a": A, "b": {**B, "data_offsets": [30, 32]}}, 32))


def test_a_file_that_was_cut_or_goes_on_is_refused(path: Path) -> None:
    assert "was cut" in refused(path, whole({"a": A, "b": B}, 25))
    assert "goes on" in refused(path, whole({"a": A, "b": B}, 27))
    assert "goes on" in refused(path, whole({}, 1))


def test_a_file_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(UnusableWeightsError, match="cannot be read"):
        read_header(path)


@given(content=st.binary(max_size=200), at=st.integers(0, 150), flip=st.integers(1, 255))
def test_mangled_bytes_are_read_or_refused_and_nothing_else(
    content: bytes, at: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mangled.safetensors"
    good = bytearray(whole({"a": A, "b": B}))
    good[at % len(good)] ^= flip
    for each in (bytes(good), content, len(content).to_bytes(8, "little") + content):
        path.write_bytes(each)
        try:
            read_header(path)
        except UnusableWeightsError:
            continue


@pytest.mark.shared
def test_the_golden_files_are_whole(shared: Path) -> None:
    found = {path.name: len(read_header(path).groups[0].tensors) for path in sorted(shared.rglob("*.safetensors"))}
    assert found["hit_srf_tiny_x2.safetensors"] == 158
    assert all(found.values())
