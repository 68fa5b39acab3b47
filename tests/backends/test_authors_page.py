"""The page for authors is true: its backend runs as printed, and no key of the manifest is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from upx.catalog import Catalog
from upx.manifest.backend import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from conftest import Bench
    from upx.config import Settings
    from upx.specs import BackendSpec

    Running = Callable[[BackendSpec, Path], AbstractContextManager[Bench]]

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "backends" / "README.md").read_text(encoding="utf-8")
TILE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Settings]:
    from upx.config import Settings

    return Settings.from_env({"UPX_HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]})


def test_the_ten_line_backend_runs_as_printed(private: Settings, running_backend: Running) -> None:
    folder = private.backends_dir / tomllib.loads(block("toml"))["name"]
    folder.mkdir(parents=True)
    (folder / "backend.toml").write_text(block("toml"))
    (folder / "worker.py").write_text(block("python"))
    shutil.copy(ROOT / "envs" / "nearest.lock", folder / "env.lock")
    spec = Catalog(private).backend("mirror")
    with running_backend(spec, Path(sys.executable)) as bench:
        bench.host.load(spec.default_model)
        np.testing.assert_array_equal(bench.host.upscale([TILE])[0], TILE[:, ::-1])
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 10


def test_a_new_backend_from_the_template_runs(private: Settings, running_backend: Running, tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    for path in ("scripts/new-backend", "backends/upx_backends/nearest", "envs/nearest.in", "envs/nearest.lock"):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, copy / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, copy / path)
    command = [copy / "scripts" / "new-backend", "sharper"]
    subprocess.run(command, check=True, capture_output=True, timeout=10)
    made = copy / "backends" / "upx_backends" / "sharper"
    text = "".join(path.read_text() for path in made.iterdir())
    assert "nearest" not in text
    assert "faults" not in text
    assert (copy / "envs" / "sharper.in").read_text().count("\n") > 2
    again = subprocess.run(command, check=False, capture_output=True, timeout=10)
    assert again.returncode == 2
    shutil.copytree(made, private.backends_dir / "sharper")
    shutil.copy(ROOT / "envs" / "nearest.lock", private.backends_dir / "sharper" / "env.lock")
    spec = Catalog(private).backend("sharper")
    assert not spec.parameters
    with running_backend(spec, Path(sys.executable)) as bench:
        bench.host.load(spec.default_model)
        np.testing.assert_array_equal(bench.host.upscale([TILE])[0], TILE.repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a-b", "../evil", "nearest"])
def test_a_name_that_is_no_package_or_taken_makes_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "backends/upx_backends/nearest").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "new-backend", tmp_path / "scripts")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run([tmp_path / "scripts" / "new-backend", name], check=False, capture_output=True, timeout=10)
    assert done.returncode == 2
    assert done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_every_key_of_the_manifest_stands_in_the_page() -> None:
    # These three are tables, and stand as such.
    flat = {key for table in keys().values() for key in table} - {"parameters", "models", "assets"}
    assert [key for key in sorted(flat) if f"`{key}`" not in README and f"`[{key}]`" not in README] == []
    for table in ("[parameters.NAME]", "[[models]]", "[[models.assets]]"):
        assert f"`{table}`" in README


def test_every_parameter_of_the_double_stands_in_the_page(settings: Settings) -> None:
    for parameter in Catalog(settings).backend("nearest").parameters:
        assert f"`{parameter.name}`" in README
        assert parameter.help
