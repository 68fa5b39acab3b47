"""Where a trace goes: looked at before anything is computed, written when all of it has ended, however it ended."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from upx.errors import OutputError, OutputExistsError, OutputPathError
from upx.media.output_file import OutputFile
from upx.trace import HEAD, Tracer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

# Written in pieces, since the file takes every piece to the system.
PIECE = 1 << 16


@contextmanager
def traced(path: Path | None) -> Generator[Tracer | None]:
    """A tracer whose trace is at ``path`` once the block has ended, also by an error; None without a path.

    OutputPathError at once where no file can be written there, or where one is that is no trace. OutputError at the
    end where it cannot be written after all, unless the block has an error of its own. A block that recorded nothing
    writes nothing.
    """
    if path is None:
        yield None
        return
    file, tracer = _opened(path), Tracer()
    try:
        yield tracer
    except BaseException:
        with suppress(OutputError):
            _write(file, tracer)
        raise
    else:
        _write(file, tracer)
    finally:
        file.abort()


def keep_apart(path: Path, targets: Iterable[Path | None]) -> None:
    """OutputPathError where a picture would be written to the trace's own file."""
    real = os.path.realpath(path)
    if any(target is not None and os.path.realpath(target) == real for target in targets):
        raise OutputPathError(f"{path}: both a picture and the trace would be written there", hint="name another file")


def _opened(path: Path) -> OutputFile:
    if str(path) == "-":
        raise OutputPathError("a trace does not go to standard output", hint="name a file, such as trace.json")
    try:
        file = OutputFile(path).open()
    except OutputError as error:
        hint = "name a file for the trace in a folder that you can write to"
        raise OutputPathError(str(error), hint=hint) from error
    if not _is_ours(path):
        file.abort()
        raise OutputPathError(f"{path}: is there already, and is no trace", hint="name another file for the trace")
    return file


def _is_ours(path: Path) -> bool:
    """Whether the file may be replaced: no picture is lost to an option that lacks its value."""
    try:
        with path.open("rb") as file:
            start = file.read(len(HEAD))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return start in {b"", HEAD.encode()}


def _write(file: OutputFile, tracer: Tracer) -> None:
    if tracer.empty:
        return
    try:
        piece = ""
        for line in tracer.lines():
            piece += line
            if len(piece) >= PIECE:
                file.write(piece.encode())
                piece = ""
        file.write(piece.encode())
        if not _is_ours(file.target):  # somebody's picture, by now
            raise OutputExistsError(f"{file.target}: something else was written there meanwhile")
        file.commit()
    except OutputError as error:
        raise OutputError(f"the trace is lost: {error}", hint="make room there, or name another file") from error
