"""The worker's log: structured records to its hosts, plain lines, or one JSON object each, to stderr."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from dataclasses import dataclass
from typing import Callable, Dict, Tuple

from upx_protocol.actions import Logged

MAX_MESSAGE = 8_000
#: Records of one kind in so many seconds, kinds that are told apart, and how far a kind's text is looked at.
MAX_ALIKE, ALIKE_S, MAX_KINDS, MAX_KIND = 20, 10.0, 256, 200
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


class Throttle(logging.Filter):
    """Lets ``MAX_ALIKE`` records of a kind pass in ``ALIKE_S`` seconds: what clients can cause would fill the disk.

    Of a kind are those of one logger, level and text before it is filled in. The first that passes after that says how
    many did not. ``clock``: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: Dict[Tuple[str, int, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it passes."""
        if record.name == PRIVATE:
            # It counts for itself.
            return True
        key, now = (record.name, record.levelno, str(record.msg)[:MAX_KIND]), self._clock()
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None or now - kind.since > ALIKE_S:
                if kind is None and len(self._kinds) >= MAX_KINDS:
                    self._kinds.clear()
                missed = kind.missed if kind is not None else 0
                self._kinds[key] = kind = _Kind(now)
                if missed:
                    record.msg, record.args = f"{record.getMessage()} ({missed} like it were left out)", None
            kind.seen += 1
            kind.missed += kind.seen > MAX_ALIKE
            return kind.seen <= MAX_ALIKE


@dataclass
class _Kind:
    since: float
    seen: int = 0
    missed: int = 0


def configure(level: str, report: Callable[[Logged], None], *, as_json: bool = False, serves: bool = False) -> None:
    """Send the root logger's records to stderr, and to the hosts.

    ``serves``: these are of other machines, have no business with what is logged here, and may cause much of it.
    """
    lines = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    lines.setFormatter(JsonLines() if as_json else plain)
    root = logging.getLogger()
    if serves:
        lines.addFilter(Throttle())
    root.handlers[:] = [lines] if serves else [lines, HostHandler(report)]
    root.setLevel(level)
