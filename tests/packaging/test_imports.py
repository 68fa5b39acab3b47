"""What `import upx` costs: nothing but itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import upx

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = {"numpy", "zmq", "pydantic", "PIL", "typer", "rich", "msgpack"}


def _modules_after(statement: str, folder: Path) -> set[str]:
    code = f"{statement}; import json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, timeout=60)
    return set(json.loads(result.stdout))


def test_importing_upx_loads_no_heavy_package(tmp_path: Path) -> None:
    assert not HEAVY & _modules_after("import upx", tmp_path)


def test_every_public_name_is_there_and_sorted() -> None:
    assert list(upx.__all__) == sorted(upx.__all__)
    assert {"Upscaler", "up"} <= set(upx.__all__)
    assert not [name for name in upx.__all__ if not hasattr(upx, name)]


def test_the_host_imports_no_backend_and_no_framework(tmp_path: Path) -> None:
    loaded = _modules_after("import upx.client, upx.host, upx.pipeline, upx.cli", tmp_path)
    assert "upx.pipeline" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {"upx_backends", "torch", "ncnn"}
