"""What may not be committed: large files, somebody's folders, addresses of a package index."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Put together here, so that this file passes its own test.
FORBIDDEN = re.compile(
    "|".join(["/ro" + "ot/", "/ho" + "me/[a-z]", "/Us" + "ers/[a-z]", "py" + r"pi\.org", "pythonhos" + "ted"])
)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that git tracks and that is there."""
    git = shutil.which("git")
    assert git is not None
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_tracked_file_is_over_a_megabyte(tracked: list[Path]) -> None:
    assert len(tracked) > 50
    assert not [path for path in tracked if path.stat().st_size > 2**20]


def test_no_tracked_file_names_a_private_folder_or_a_package_index(tracked: list[Path]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked
        if path.suffix not in {".jpg", ".png", ".webp"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found


def test_the_resolution_is_pinned_without_a_committed_lock_of_the_project(tracked: list[Path]) -> None:
    assert not [path for path in tracked if path.name == "uv.lock"]
    assert "exclude-newer" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "uv sync" in (ROOT / "scripts" / "install").read_text(encoding="utf-8")
    assert "--no-config" not in (ROOT / "scripts" / "install").read_text(encoding="utf-8"), "it drops exclude-newer"


def test_every_script_can_be_run(tracked: list[Path]) -> None:
    scripts = [p for p in tracked if p.parent.name == "scripts" or p == ROOT / ".ci" / "run"]
    assert len(scripts) >= 8
    assert not [path.name for path in scripts if not path.stat().st_mode & 0o111]


def test_no_module_is_over_three_hundred_lines_without_a_reason(tracked: list[Path]) -> None:
    for path in tracked:
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in {"orchestrator", "protocol", "backends"}:
            text = path.read_text(encoding="utf-8")
            docstring = text.split('"""')[1] if '"""' in text else ""
            assert text.count("\n") <= 300 or "300 lines" in docstring, path
