"""Write one output beside its target and put it in place when it is whole: readers never see half a file."""

from __future__ import annotations

import errno
import io
import itertools
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from upx.errors import OutputError, OutputExistsError, OutputPathError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from upx.jobs import OnExists

Bytes: TypeAlias = "bytes | bytearray | memoryview"

_DESCRIPTORS = "/proc/self/fd"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# What filesystems without hard links answer to a link (FAT, some network shares).
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.EINVAL}


class Sink(Protocol):
    """Where encoded bytes go."""

    def write(self, data: Bytes, /) -> int:
        """Take all of ``data``."""
        ...


class OutputFile:
    """A file that appears under its name by ``commit`` and never otherwise.

    ``with OutputFile(path) as file: file.write(...); file.commit()``: without the commit, whatever the reason, nothing
    is left. A symbolic link as target is written through. ``fsync`` also survives a power cut, for the price of a
    wait. Every failure is an OutputError with a hint; OutputPathError: the folder is not there, or the target is
    something other than a file.
    """

    def __init__(self, target: Path | str, *, fsync: bool = False) -> None:
        self.target = Path(target)
        self._fsync = fsync
        self._real = self.target
        self._temporary: Path | None = None
        self._file: io.FileIO | None = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def open(self) -> Self:
        """Create a file in the target's folder: without a name where the system has such, else a hidden one."""
        self._real = _writable_target(self.target)
        try:
            self._file = _nameless(self._real.parent)
            if self._file is None:
                temporary = _hidden(self._real)
                # Unbuffered, so that a full disk is met by the write that filled it; "x" keeps to the umask's bits.
                self._file = temporary.open("xb", buffering=0)
                self._temporary = temporary
        except OSError as error:
            raise output_error(error, self.target) from error
        return self

    def write(self, data: Bytes) -> int:
        """Write all of ``data``; its length in bytes."""
        view = memoryview(data).cast("B")
        file = self._opened()
        written = 0
        try:
            while written < len(view):
                written += file.write(view[written:]) or 0
        except OSError as error:
            raise output_error(error, self.target) from error
        return written

    def commit(self, *, on_exists: OnExists = "overwrite") -> Path:
        """Put the file in place; its path, which another name follows where ``on_exists`` is "rename".

        OutputExistsError where something has that name by now and ``on_exists`` is "skip" or "error".
        """
        file = self._opened()
        try:
            if self._fsync:
                os.fsync(file.fileno())
            if self._temporary is None:
                self._temporary = _hidden(self._real)
                _give_name(file, self._temporary)
            temporary = self._temporary
            file.close()
            if on_exists == "overwrite":
                temporary.replace(self._real)
            elif on_exists == "rename":
                self._place_free(temporary)
            else:
                _place_new(temporary, self._real)
            if self._fsync:
                _sync_folder(self._real.parent)
        except OSError as error:
            self.abort()
            raise output_error(error, self.target) from error
        self._temporary = self._file = None
        return self.target

    def _place_free(self, temporary: Path) -> None:
        """Give it the first name that nobody took: NAME, NAME_2, NAME_3."""
        target, real = self.target, self._real
        stem, first = _series(target)
        for number in itertools.count(first):
            try:
                _place_new(temporary, self._real)
            except FileExistsError:
                name = f"{stem}_{number}{target.suffix}"
                self.target, self._real = target.with_name(name), real.with_name(name)
            else:
                return

    def abort(self) -> None:
        """Remove what was written; nothing after a commit."""
        file, temporary = self._file, self._temporary
        self._file = self._temporary = None
        if file is not None:
            with suppress(OSError):  # the data is unwanted, so a late error of its close is too
                file.close()
        if temporary is not None:
            temporary.unlink(missing_ok=True)

    def _opened(self) -> io.FileIO:
        if self._file is None:
            raise ValueError("the output file is not open")
        return self._file


def output_error(error: OSError, target: Path) -> OutputError:
    """What the system said, as an error with the next step."""
    if error.errno in _FULL:
        return OutputError(f"{target}: no space left to write it", hint="free space, or choose another disk with -o")
    if error.errno in _FORBIDDEN:
        return OutputError(f"{target}: no permission to write there", hint="choose another folder with -o")
    if error.errno == errno.EEXIST:
        return OutputExistsError(f"{target}: exists already", hint="use --on-exists overwrite, or another name with -o")
    said = error.strerror or str(error)
    if error.errno == errno.ENAMETOOLONG:
        return OutputError(f"{target}: its name is too long", hint="give a shorter one with -o")
    return OutputError(f"{target}: cannot be written: {said}", hint="choose another place with -o")


def _hidden(real: Path) -> Path:
    """A free name beside it; not its name plus a suffix, which may be longer than a name can be."""
    return real.with_name(f".upx-{secrets.token_hex(8)}.part")


def _nameless(folder: Path) -> io.FileIO | None:
    """A new file in ``folder`` that is gone with its last descriptor, so that not even SIGKILL leaves it behind.

    None where system or file system have none; and where ``folder`` cannot be written, which a named file will tell.
    """
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not os.path.isdir(_DESCRIPTORS):  # noqa: PTH112  # text, and on the path of every picture
        return None
    try:
        return io.FileIO(os.open(folder, os.O_RDWR | os.O_CLOEXEC | flag, 0o666), "rb+")
    except OSError:
        return None


def _give_name(file: io.FileIO, name: Path) -> None:
    """Name a nameless file; copied where the file system has no links."""
    opened = f"{_DESCRIPTORS}/{file.fileno()}"
    try:
        # A descriptor for the folder, which an absolute path does not need, is what makes the link be followed.
        os.link(opened, name, src_dir_fd=file.fileno(), follow_symlinks=True)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(opened, "rb") as source, name.open("xb") as target:  # noqa: PTH123  # a descriptor by its path
            shutil.copyfileobj(source, target)


def _writable_target(target: Path) -> Path:
    """The file behind ``target``; OutputPathError where there can be none."""
    try:
        real = Path(os.path.realpath(target))
        parent, existing = _mode(real.parent), _mode(real)
    except OSError as error:
        raise output_error(error, target) from error
    if parent is None or not stat.S_ISDIR(parent):
        raise OutputPathError(f"{target}: its folder is not there", hint=f"create {real.parent}, or choose another")
    if existing is not None and stat.S_ISDIR(existing):
        raise OutputPathError(f"{target}: is a directory", hint="name a file in it")
    if existing is not None and not stat.S_ISREG(existing):
        # Renaming onto /dev/null would replace the device for everybody.
        raise OutputPathError(f"{target}: is not a regular file", hint="name a file")
    return real


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _place_new(temporary: Path, target: Path) -> None:
    """Give the file its name unless the name is taken, decided by the filesystem in one step."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without links: whoever creates the empty file owns the name, and renames onto his own file.
        target.open("xb").close()
        temporary.replace(target)
    else:
        temporary.unlink()


def _series(target: Path) -> tuple[str, int]:
    """The stem to number and the first number: NAME_2 beside a NAME is one of a series, so NAME_3 follows."""
    stem, _, number = target.stem.rpartition("_")
    if stem and number.isascii() and number.isdigit() and target.with_name(stem + target.suffix).exists():
        return stem, int(number) + 1
    return target.stem, 2


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
