"""The code that a box of the far soak runs: a copy of ours, which can be changed into that of another release."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import upx_backends
import upx_protocol
from upx_protocol.version import NEWEST, OLDEST, Version

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True)
class Release:
    """The versions of the protocol that it speaks; by its name its build is another."""

    name: str
    oldest: Version
    newest: Version


OURS = Release("ours", OLDEST, NEWEST)
NEWER = Release("newer", OLDEST, Version(NEWEST.major, NEWEST.minor + 1))
OLDER = Release("older", OLDEST, OLDEST)
STRANGE = Release("strange", Version(NEWEST.major + 1, 0), Version(NEWEST.major + 1, 0))


class Code:
    """``folder`` goes first on the box's path: workers are staged from what is found there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in (upx_protocol, upx_backends):
            source = _place(package)
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))

    def install(self, release: Release) -> None:
        """Put a release in place, as an update does while the old one still runs."""
        versions = self.folder / "upx_protocol" / "version.py"
        text = versions.read_text()
        for name, version in (("OLDEST", release.oldest), ("NEWEST", release.newest)):
            told = f"{name} = Version({version.major}, {version.minor})"
            text, found = re.subn(rf"^{name} = .*$", told, text, flags=re.MULTILINE)
            if found != 1:
                raise RuntimeError(f"{versions} does not say what {name} is")
        versions.write_text(text)
        backend = Path("nearest", "__init__.py")
        mark = "" if release == OURS else f"# {release.name}\n"
        (self.folder / "upx_backends" / backend).write_text((_place(upx_backends) / backend).read_text() + mark)


def _place(package: ModuleType) -> Path:
    return Path(next(iter(package.__path__)))
