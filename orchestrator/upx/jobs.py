"""What a job is told: how a picture is done, and which pictures the given paths mean.

What the outputs are called is decided in ``naming``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.errors import InputError, ParameterError, UnreadablePictureError

if TYPE_CHECKING:
    from collections.abc import Iterable

Format: TypeAlias = Literal["png", "jpeg", "webp"]
OnExists: TypeAlias = Literal["overwrite", "skip", "rename", "error"]

FORMAT_OF: dict[str, Format] = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".webp": "webp",
}  # fmt: skip
# What a folder is searched for; a file that is named itself is tried whatever its suffix.
PICTURE_SUFFIXES = frozenset(FORMAT_OF) | {
    ".bmp", ".dib", ".gif", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff",
}  # fmt: skip
STDIO = "-"
_HIGHEST_QUALITY = 100
# What a message can carry, and what a tile's own seed is cut to.
_SEED_END = 2**63


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How one picture is done.

    ``tile`` and ``overlap`` are input pixels: ``tile`` 0 is automatic and None is off (the whole picture at
    once), ``overlap`` None is the model's own. ``format`` is png, jpeg or webp, ``quality`` 1..100.
    ParameterError for a value out of its range.
    """

    tile: int | None = 0
    overlap: int | None = None
    seed: int | None = None
    format: str | None = None
    quality: int | None = None
    on_exists: OnExists = "overwrite"

    def __post_init__(self) -> None:
        if not _is_count(self.tile):
            raise ParameterError(f"a tile of {self.tile} pixels", hint="-t auto, off, or pixels of the input")
        if not _is_count(self.overlap):
            raise ParameterError(f"an overlap of {self.overlap} pixels", hint="--overlap takes 0 or more input pixels")
        if not _is_count(self.seed, end=_SEED_END):
            raise ParameterError(f"a seed of {self.seed}", hint="--seed takes a whole number from 0 up, below 2**63")
        if not _is_count(self.quality, start=1, end=_HIGHEST_QUALITY + 1):
            raise ParameterError(f"a quality of {self.quality}", hint="--quality goes from 1 to 100")
        if self.format is not None:
            parse_format(self.format)


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to be done.

    ``name`` is what messages call it; ``source`` is None for standard input. ``rel`` is its path below the
    folder that was named, or its file name; ``found`` says that it came out of a folder. ``error`` is why it
    cannot be done at all.
    """

    name: str
    source: Path | None
    rel: Path
    found: bool = False
    error: InputError | None = None


def _is_count(value: object, *, start: int = 0, end: float = float("inf")) -> bool:
    """Whether it is None or a whole number in the range: callers without a type checker give anything."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and start <= value < end)


def parse_format(name: str) -> Format:
    """The format called ``name`` (``jpg`` is jpeg); ParameterError for any other."""
    known = FORMAT_OF.get(f".{name.lower().lstrip('.')}")
    if known is None:
        raise ParameterError(f"{name!r} is no output format", hint="-f png, jpeg or webp")
    return known


def expand_inputs(paths: Iterable[str | Path]) -> list[Input]:
    """The pictures that ``paths`` mean: files as they are, folders searched, sorted, hidden names left out.

    A path that cannot be used becomes an Input with an error, so that the others are still done. A file
    named twice is done once.
    """
    found: dict[str, Input] = {}
    for path in paths:
        for item in _expand(str(path)):
            found.setdefault(STDIO if item.source is None else os.path.abspath(item.source), item)  # noqa: PTH100  # the text is compared, never resolved
    return list(found.values())


def _expand(path: str) -> list[Input]:
    if path == STDIO:
        return [Input(name="stdin", source=None, rel=Path("stdin"))]
    if not path:
        # Path("") is the current folder: an empty variable in a script would enlarge everything in it.
        return [_unusable(path, "an empty name is no picture", hint="name a file or a folder; . is this one")]
    source = Path(path)
    try:
        if source.is_dir():
            return _search(source)
        missing = not source.exists()
    except OSError as error:
        return [_unusable(path, f"{path}: {error.strerror}", hint="check the path", cause=error)]
    if missing:
        return [_unusable(path, f"{path}: no such file", hint="check the path")]
    return [Input(name=path, source=source, rel=Path(source.name))]


def _search(folder: Path) -> list[Input]:
    unread: list[OSError] = []
    rels: list[Path] = []
    for where, folders, files in os.walk(folder, onerror=unread.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(where).relative_to(folder)
        rels += [
            here / name for name in files if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
        ]
    items = [Input(name=str(folder / rel), source=folder / rel, rel=rel, found=True) for rel in sorted(rels)]
    for error in unread:
        name = str(error.filename)
        hint = "give yourself permission to list it"
        items.append(_unusable(name, f"{name}: {error.strerror}", hint=hint, cause=error))
    if not items:
        hint = "files named one by one are tried whatever their suffix"
        items.append(_unusable(str(folder), f"{folder}: a folder without pictures", hint=hint))
    return items


def _unusable(name: str, message: str, *, hint: str, cause: OSError | None = None) -> Input:
    error = UnreadablePictureError(message, hint=hint)
    error.__cause__ = cause
    return Input(name=name, source=Path(name), rel=Path(Path(name).name), error=error)
