"""The worker's log: structured records to its hosts, plain lines, or one JSON object each, to stderr."""

from __future__ import annotations

import json
import logging
import sys
from typing import Callable

from upx_protocol.actions import Logged

MAX_MESSAGE = 8_000
#: Who knocks at a worker's door is no business of its other clients.
PRIVATE = "upx.door"


class HostHandler(logging.Handler):
    """Hands records to the loop, which sends them to every host and drops them when a host does not read."""

    def __init__(self, report: Callable[[Logged], None]) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits and never raises into the code that logs."""
        if record.name == PRIVATE:
            return
        try:
            message = self.format(record)[-MAX_MESSAGE:]
            self._report(Logged(record.levelname, record.name[:100], message, record.created))
        except Exception:  # noqa: BLE001  logging's own rule: an error in a handler is its own affair
            self.handleError(record)


class JsonLines(logging.Formatter):
    """One JSON object a record: time (seconds since the epoch), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, with its traceback inside the message."""
        message = super().format(record)
        said = {"time": record.created, "level": record.levelname, "logger": record.name, "message": message}
        return json.dumps(said)


def configure(level: str, report: Callable[[Logged], None], *, as_json: bool = False) -> None:
    """Send the root logger's records to the hosts and to stderr."""
    lines = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    lines.setFormatter(JsonLines() if as_json else plain)
    root = logging.getLogger()
    root.handlers[:] = [lines, HostHandler(report)]
    root.setLevel(level)
