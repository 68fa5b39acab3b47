"""An ONNX file is skimmed as protobuf: names, shapes and versions, and nothing that reaches outside of its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_kit import external, model, number, part, tensor, varint

from upx.assets.inspect.inventory import Tensor
from upx.assets.inspect.onnx import read_onnx
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from pathlib import Path


WEIGHT = part(5, tensor("conv.weight", [2, 3], raw=bytes(24))) + part(
    5, tensor("b", [2], kind=10, raw=bytes(4), packed=True)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UnusableWeightsError) as caught:
        read_onnx(path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_initialisers_versions_and_operator_sets_are_read(path: Path) -> None:
    path.write_bytes(model(WEIGHT))
    found = read_onnx(path)
    assert found.format == "onnx"
    assert found.groups[0].tensors == {
        "conv.weight": Tensor("conv.weight", "F32", (2, 3)),
        "b": Tensor("b", "F16", (2,)),
    }
    assert found.metadata == {"ir_version": "8", "producer": "kit", "opset": "17", "opset com.x": "3"}


def test_a_file_without_a_version_or_a_graph_is_refused(path: Path) -> None:
    assert "no version" in refused(path, part(7, WEIGHT))
    assert "no version" in refused(path, number(1, 8))
    assert refused(path, b"")


def test_a_file_that_was_cut_anywhere_is_refused_or_has_lost_whole_fields(path: Path) -> None:
    content = model(WEIGHT)
    graph_ends = content.index(WEIGHT) + len(WEIGHT)
    for length in range(graph_ends):
        refused(path, content[:length])


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (varint(5 << 3 | 2) + varint(2**40) + b"x", "longer than the file"),
        (varint(5 << 3 | 2) + b"\xff" * 12, "has no end"),
        (varint(5 << 3 | 3), "unknown kind 3"),
        (number(5, 1), "is no message"),
        (part(5, tensor("w", [-1])), "negative"),
        (part(5, tensor("w", [1] * 65, raw=None)), "more than 64"),
        (part(5, tensor("w", [2], kind=99)), "type 99"),
        (part(5, tensor("w", [2], raw=bytes(9))), "takes 9 bytes"),
        (part(5, tensor("w", [10**12, 10**12])), "takes 0 bytes"),
        (part(5, tensor("w", [0])) * 2, "'w' twice"),
        (part(5, tensor("n" * 5_000, [0])), "where a name belongs"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(path: Path, graph: bytes, says: str) -> None:
    assert says in refused(path, model(graph))


@pytest.mark.parametrize("place", ["/etc/passwd", "../x", "a/../../x", "..\\x", "C:\\x", "c:x", "", "a\0b"])
def test_external_data_outside_of_the_folder_is_refused_wherever_it_hides(path: Path, place: str) -> None:
    hidden = external("w", location=place)
    subgraph = part(6, part(5, hidden))
    ways = {
        "an initialiser": part(5, hidden),
        "a constant": part(1, part(5, part(5, hidden))),
        "constants": part(1, part(5, part(10, hidden))),
        "a branch": part(1, part(5, subgraph)),
        "branches": part(1, part(5, part(11, part(5, hidden)))),
        "sparse values": part(15, part(1, hidden)),
    }
    for way, graph in ways.items():
        assert "outside its folder" in refused(path, model(graph)), way
    assert "outside its folder" in refused(path, model(b"") + part(25, part(7, part(5, part(5, hidden)))))


def test_external_data_beside_the_file_is_allowed_and_its_numbers_are_numbers(path: Path) -> None:
    path.write_bytes(model(part(5, external("w", location="data/m.bin", offset="0", length="16"))))
    assert read_onnx(path).groups[0].tensors["w"].shape == (4,)
    assert "the offset '-4'" in refused(path, model(part(5, external("w", location="m.bin", offset="-4"))))


def test_graphs_without_end_in_each_other_are_refused(path: Path) -> None:
    graph = WEIGHT
    for _ in range(100):
        graph = part(1, part(5, part(6, graph)))
    assert "deep" in refused(path, model(graph))


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), noise=st.binary(max_size=100))
def test_mangled_bytes_are_read_or_refused_and_nothing_else(
    at: int, flip: int, noise: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mangled.onnx"
    content = bytearray(model(WEIGHT + part(5, external("x", location="y"))))
    content[at % len(content)] ^= flip
    for each in (bytes(content), noise, model(noise)):
        path.write_bytes(each)
        try:
            read_onnx(path)
        except UnusableWeightsError:
            continue
