"""The screen of ``upx top``: a table that is drawn again and again, and the key that ends it.

The terminal is given back as it was, whatever ends the command short of SIGKILL.
"""

from __future__ import annotations

import select
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from upx.cli._console import shown
from upx.cli._workers import UNHEARD
from upx.cli._workers_lines import GAP, fitting, total_text

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from rich.console import Group

    from upx.cli._workers import TopSample

ENDS = b"qQ"
RIGHT = {"HOSTS", "QUEUE", "MP/S", "TILES/S", "BUSY", "MEMORY"}


class Screen:
    """Standard output is a terminal. A context manager, for one thread."""

    def __init__(self) -> None:
        # rich takes 60 ms to load, which only who watches pays.
        from rich.console import Console as Terminal

        # Words of boxes are shown: nothing in them is markup.
        self._terminal = Terminal(markup=False, emoji=False, highlight=False)
        self._stack = ExitStack()
        self._live: Any = None
        self._listens = False

    def __enter__(self) -> Self:
        from rich.live import Live

        with ExitStack() as stack:
            self._listens = sys.stdin.isatty() and stack.enter_context(_keys())
            self._live = stack.enter_context(
                Live(console=self._terminal, screen=True, auto_refresh=False, redirect_stdout=False)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def show(self, sample: TopSample) -> None:
        """Draw a sample."""
        self._live.update(picture(sample, self._terminal.width), refresh=True)

    def ended(self, seconds: float) -> bool:
        """Wait so long; whether the user has ended it meanwhile."""
        if not self._listens:
            time.sleep(max(0.0, seconds))
            return False
        until = time.monotonic() + seconds
        while select.select([sys.stdin], [], [], max(0.0, until - time.monotonic()))[0]:
            typed = sys.stdin.buffer.raw.read(64)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]  # a terminal's has one
            # Nothing to read where there was something: the terminal has gone.
            if not typed or any(key in ENDS for key in typed):  # pyright: ignore[reportUnknownVariableType]  # same
                return True
        return False


def picture(sample: TopSample, width: int) -> Group:
    """What is drawn: the sums first, which a short terminal must not cut off; who was not heard is greyed."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    headers, *rows = fitting(sample.workers, width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(Text(header), no_wrap=True, justify="right" if header in RIGHT else "left")
    for row, cells in zip(sample.workers, rows, strict=True):
        table.add_row(*(Text(shown(cell)) for cell in cells), style="dim" if row.state in UNHEARD else "")
    clock = time.strftime("%H:%M:%S", time.localtime(sample.time))
    total = Text(f"{clock}  {total_text(sample)}", style="bold", no_wrap=True, overflow="ellipsis")
    return Group(total, Text(""), table if rows else Text("no workers are running", style="dim"))


@contextmanager
def _keys() -> Generator[bool]:
    """Single keys come as they are pressed, unseen; yields whether there are any to come.

    Ctrl-Z does nothing meanwhile: it would leave the shell on our screen, without a cursor.
    """
    try:
        import termios
        import tty
    except ImportError:  # Windows: Ctrl-C alone
        yield False
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSANOW)
        changed = termios.tcgetattr(sys.stdin)
        changed[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(sys.stdin, termios.TCSANOW, changed)
        yield True
    finally:
        with suppress(termios.error):  # The terminal may have gone, and has nothing to be given back then.
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
