"""The worker's log: structured records to its hosts, plain lines to stderr."""

from __future__ import annotations

import logging
import sys
from typing import Callable

from upx_protocol.actions import Logged

MAX_MESSAGE = 8_000


class HostHandler(logging.Handler):
    """Hands records to the loop, which sends them to every host and drops them when a host does not read."""

    def __init__(self, report: Callable[[Logged], None]) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits and never raises into the code that logs."""
        try:
            message = self.format(record)[-MAX_MESSAGE:]
            self._report(Logged(record.levelname, record.name[:100], message, record.created))
        except Exception:  # noqa: BLE001  logging's own rule: an error in a handler is its own affair
            self.handleError(record)


def configure(level: str, report: Callable[[Logged], None]) -> None:
    """Send the root logger's records to the hosts and to stderr."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [lines, HostHandler(report)]
    root.setLevel(level)
