"""A file's format is told by its bytes; a suffix that lies changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from upx.assets.inspect.kinds import kind_of
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from pathlib import Path

SAFE = (0x80).to_bytes(8, "little") + b"{" + b" " * 0x7E + b"}"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.safetensors", SAFE, "safetensors"),
        ("a.pth", SAFE, "safetensors"),
        ("a.pth", b"PK\x03\x04rest", "torch-zip"),
        ("a.safetensors", b"PK\x03\x04rest", "torch-zip"),
        ("a.ckpt", b"\x80\x02\x8a", "torch-pickle"),
        ("a.safetensors", b"\x80\x02\x8a", "torch-pickle"),
        ("a.onnx", b"\x08\x08", "onnx"),
        ("a.bin", b"\x08\x08\x12\x03kit:", "onnx"),
        ("a.bin", b"\x08\x08\x99", "other"),
        ("a.param", b"7767517\n12 13\n", "ncnn-param"),
        ("config.json", b'\n {"a": 1}', "json"),
        ("a.bin", b"\x01\x02", "other"),
        ("a.pth", b"", "other"),
        ("a.pth", b"\x80", "other"),
    ],
)
def test_the_format_is_told_by_the_bytes(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert kind_of(path) == kind


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableWeightsError, match="cannot be read"):
        kind_of(tmp_path / "none")
