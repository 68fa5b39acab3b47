"""The process of the command: its signals, and its exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

PROGRAMS = ("upx", "upx-sr")
# A wrapper may pass on a Ctrl-C that the terminal has sent to everybody already.
SAME_SIGNAL_S = 1.0
INTERRUPTED = 130


class Interrupts:
    """The first signal interrupts, so that everything is put away; one that follows later ends at once."""

    def __init__(self) -> None:
        self._first: float | None = None

    def install(self) -> None:
        """Take the signals, but for those that a parent told us to ignore (``nohup``, a shell's ``&``)."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self.handle)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt, or leave."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            raise KeyboardInterrupt
        if now - self._first > SAME_SIGNAL_S:
            os._exit(INTERRUPTED)


def hold_streams() -> None:
    """Put something in the place of standard streams that were closed: ``upx ... >&-``, or a daemon's child.

    Else the next file or socket that is opened gets their number, and with it whatever somebody prints.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            # Results that go nowhere must not look written; words may.
            taken = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if taken != number:
                os.dup2(taken, number)
                os.close(taken)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # a number, for as long as the process lives


def main() -> None:
    """Run the command line of this process."""
    try:
        Interrupts().install()
        hold_streams()
        from upx.cli._app import run

        name = Path(sys.argv[0]).name
        code = run(sys.argv[1:], prog=name if name in PROGRAMS else "upx")
    except KeyboardInterrupt:  # before or after the command itself
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
