"""What the wheel and the source distribution hold."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from built import Dist

ROOT = Path(__file__).resolve().parents[2]
OURS = ("upx/", "upx_protocol/", "upx_backends/", "upx_envs/")
ROOTS = {"upx": "orchestrator", "upx_protocol": "protocol", "upx_backends": "backends"}


def _sources() -> list[str]:
    """Every module and manifest of the three packages, as the wheel should name it."""
    return [
        path.relative_to(ROOT / root).as_posix()
        for package, root in ROOTS.items()
        for path in sorted((ROOT / root / package).rglob("*"))
        if path.suffix in {".py", ".toml", ".typed"}
    ]


@pytest.mark.timeout(180)
def test_the_wheel_holds_every_module_manifest_and_lock(dist: Dist) -> None:
    names = set(dist.names())
    assert set(_sources()) <= names
    locks = [f"upx_envs/{path.name}" for path in sorted((ROOT / "envs").glob("*.lock"))]
    assert len(locks) >= 2
    assert set(locks) <= names


def test_the_wheel_holds_nothing_else(dist: Dist) -> None:
    others = [name for name in dist.names() if not name.startswith(OURS) and ".dist-info/" not in name]
    assert not others
    unwanted = [name for name in dist.names() if "test" in Path(name).name and not name.startswith("upx_protocol/")]
    assert not [name for name in unwanted if not name.endswith("testing.py")], unwanted


def test_both_commands_are_installed(dist: Dist) -> None:
    import zipfile

    with zipfile.ZipFile(dist.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        text = archive.read(name).decode()
    assert "upx = upx.__main__:main" in text
    assert "upx-sr = upx.__main__:main" in text


def test_the_source_distribution_builds_the_wheel_and_brings_the_licence(dist: Dist) -> None:
    with tarfile.open(dist.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "envs/span.lock"} <= names
    assert not [name for name in names if name.startswith(("tests/", ".venv/", "shared/"))]


def test_no_file_of_a_distribution_is_over_a_megabyte(dist: Dist) -> None:
    for path in (dist.wheel, dist.sdist):
        assert path.stat().st_size < 2**20, path.name
