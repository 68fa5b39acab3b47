"""Where a command's words go: results to standard output, everything else to standard error."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from upx.errors import EnvBuildError, OutputError, UpxError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

ARROW = "→"
# What a terminal obeys instead of showing it: a file's name, or a worker's words, may hold anything.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# The reader has gone, or there never was one.
_NOBODY = {errno.EPIPE, errno.EBADF}


class Console:
    """The two streams of one command; ``before`` and ``after`` surround every write while a bar is shown."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.before: Callable[[], None] = _nothing
        self.after: Callable[[], None] = _nothing
        self._out_closed = False
        # Lines come from any thread, and the bar steps aside for one at a time.
        self._lock = threading.RLock()

    @property
    def deaf(self) -> bool:
        """Whether nobody reads results any more."""
        return self._out_closed

    def results(self, *results: Any) -> None:
        """Print results, all of one kind; a reader that has gone (``| head``) is no failure."""
        from upx.cli._render import to_lines, to_record

        if self.as_json:
            import json

            lines = [json.dumps(to_record(result), allow_nan=False) for result in results]
        else:
            lines = to_lines(results)
        self._out(lines)

    def line(self, text: str) -> None:
        """Print one line as a result."""
        self._out([text])

    def note(self, line: str) -> None:
        """Tell people, unless they asked for quiet."""
        if not self.quiet:
            self._err(line)

    def detail(self, line: str) -> None:
        """Tell people who asked for more."""
        if self.verbose:
            self._err(line)

    def failure(self, error: UpxError, *, about: str = "") -> None:
        """One line that says what, one that says what to do; with ``-v`` the log of a build that failed."""
        what = " ".join(str(error).split())
        self._err(f"upx: {about}: {what}" if about and about not in what else f"upx: {what}")
        if error.hint:
            self._err(f"  {self._arrow()} {error.hint}")
        if self.verbose and isinstance(error, EnvBuildError) and error.log:
            self._err(error.log.rstrip())

    def ended(self, error: UpxError) -> None:
        """The failure of the whole command: for people, and with ``--json`` as the last record."""
        from upx.cli._results import Failure

        self.failure(error)
        if self.as_json:
            self.results(Failure(error.code, str(error), error.hint, error.exit_code))

    def traceback(self, error: BaseException) -> None:
        """Where an unexpected error came from, for those who asked for more."""
        if self.verbose:
            import traceback

            self._err("".join(traceback.format_exception(error)).rstrip())

    def raw(self, line: str) -> None:
        """A line on standard error, whatever was asked for."""
        self._err(line)

    def _out(self, lines: Sequence[str]) -> None:
        if self._out_closed or not lines:
            return
        with self._lock, self._aside():
            try:
                for line in lines:
                    _write(sys.stdout, shown(line) if sys.stdout.isatty() else line)
                sys.stdout.flush()
            except OSError as error:
                self._out_closed = True
                silence_stdout()
                if error.errno not in _NOBODY:
                    raise stdout_error(error) from error

    def _err(self, line: str) -> None:
        with self._lock, self._aside():
            try:
                sys.stderr.write(f"{shown(line)}\n")
                sys.stderr.flush()
            except OSError:
                self.quiet = True  # nobody is left to tell

    @contextmanager
    def _aside(self) -> Generator[None]:
        self.before()
        try:
            yield
        finally:
            self.after()

    def _arrow(self) -> str:
        try:
            ARROW.encode(sys.stderr.encoding or "ascii")
        except UnicodeEncodeError:
            return "->"
        return ARROW


def shown(text: str) -> str:
    """The text with what a terminal would obey spelled out."""
    return _COMMANDS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def stdout_error(error: OSError) -> OutputError:
    """Why standard output could not be written to."""
    if error.errno in _NOBODY:
        return OutputError("standard output was closed before everything was written", hint="write to a file: -o")
    return OutputError(f"standard output cannot be written: {error.strerror}", hint="write somewhere else")


def silence_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains of the broken pipe as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _write(stream: IO[str], line: str) -> None:
    try:
        stream.write(f"{line}\n")
    except UnicodeEncodeError:  # a name in another encoding than the terminal's goes out byte for byte
        stream.flush()
        stream.buffer.write(os.fsencode(line) + b"\n")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # standard output has one


def _nothing() -> None:
    """No bar is shown."""
