"""The worker's line to the process that keeps what hosts send: a thread, so that a slow disk keeps nobody waiting.

One JSON object a line, over a socket that both inherited; a chunk's bytes follow its line:

    worker ──> {"begin", "sha256", "size", "client"} | {"chunk", "nbytes"} bytes | {"end"}
    keeper ──> {"offset"} | {"later": offset} | {"failure", "retryable", "message"}, but for "end"

The number of the file is the value of the first key.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict

from upx_protocol.actions import Failure, Kept

if TYPE_CHECKING:
    from upx_protocol.actions import KeepTask

MAX_LINE = 65_536


class Clerk(threading.Thread):
    """Owns its end of the line. ``put`` is for one thread at a time and never waits; ``report`` is called from here."""

    def __init__(self, fd: int, report: Callable[[Kept], None]) -> None:
        super().__init__(name="clerk", daemon=True)
        self._socket = socket.socket(fileno=fd)
        self._lines = self._socket.makefile("rb")
        self._report = report
        # Bounded: a file has a window on its way, and a place among few from its first task until that is answered.
        self._tasks: queue.SimpleQueue[KeepTask] = queue.SimpleQueue()

    def put(self, task: KeepTask) -> None:
        """Take a task; what becomes of it is reported."""
        self._tasks.put(task)

    def run(self) -> None:
        """Carry out one task after the other, for as long as the process lives."""
        while True:
            task = self._tasks.get()
            try:
                answer = self._ask(task)
                kept = _kept(task.number, answer) if task.what != "end" else None
            except (OSError, ValueError, KeyError, TypeError) as error:
                # The keeper has gone, and this worker is about to; or it says what is no answer.
                failure = Failure("transient", True, f"nobody keeps this machine's files any more: {error!r}")
                kept = Kept(task.number, failure=failure)
            if kept is not None:
                self._report(kept)

    def _ask(self, task: KeepTask) -> Dict[str, Any]:
        question: Dict[str, Any] = {task.what: task.number}
        if task.what == "begin":
            question.update(sha256=task.sha256, size=task.size, client=task.client)
        elif task.what == "chunk":
            question.update(nbytes=len(task.data))
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        if task.what == "end":
            return {}
        if task.what == "chunk":
            self._socket.sendall(task.data)
        line = self._lines.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise OSError("the line has ended")
        return json.loads(line)


def _kept(number: int, answer: Dict[str, Any]) -> Kept:
    if "failure" in answer:
        said = Failure(str(answer["failure"]), bool(answer["retryable"]), str(answer["message"])[:1000])
        return Kept(number, failure=said)
    if "later" in answer:
        return Kept(number, int(answer["later"]), later=True)
    return Kept(number, int(answer["offset"]))
