"""The worker's line to the process that keeps its machine: what a model's files are here, asked once a load.

A host far away knows a model's name and its weights' digest, and nothing of the paths, devices and licences of the
machine that computes. One JSON object a line, over a socket that both inherited:

    worker ──> {"model", "weights", "precision", "threads", "params"}
    keeper ──> {"progress": [stage, done, total]}…
               {"files", "precision", "threads", "params"}, or {"failure", "message"} with "wanted" where the host may
               send what is missing: [{"role", "name", "sha256", "size"}]
"""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Dict, Tuple

from upx_protocol.errors import BadInputError, FatalError, TransientError
from upx_protocol.files import Wanted

if TYPE_CHECKING:
    from upx_protocol.messages import Load

MAX_LINE = 1024 * 1024


class LackingError(BadInputError):
    """A model's ``files`` are not on this machine, and the host may send them."""

    def __init__(self, message: str, files: Tuple[Wanted, ...]) -> None:
        super().__init__(message)
        self.files = files


class Steward:
    """Owns its end of the line. ``resolve`` is for one thread."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._lines = self._socket.makefile("rb")

    def resolve(self, load: Load, progress: Callable[[str, float, float], None]) -> Load:
        """The same request in this machine's terms.

        BadInputError for what cannot be loaded here, LackingError for want of files, TransientError for what may be
        another time, FatalError when nobody keeps this machine any more.
        """
        question = {
            "model": load.model,
            "weights": load.weights,
            "precision": load.precision,
            "threads": load.threads,
            "params": load.params,
        }
        self._say(question)
        while True:
            answer = self._hear()
            if "progress" in answer:
                stage, done, total = answer["progress"]
                progress(str(stage), float(done), float(total))
            elif answer.get("wanted"):
                raise LackingError(answer["message"], tuple(Wanted(**each) for each in answer["wanted"]))
            elif "failure" in answer:
                raise (TransientError if answer["failure"] == "transient" else BadInputError)(answer["message"])
            else:
                return replace(load, **answer)

    def _say(self, question: Dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise FatalError(f"nobody keeps this machine's files any more: {error}") from error

    def _hear(self) -> Dict[str, Any]:
        line = self._lines.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise FatalError("nobody keeps this machine's files any more")
        return json.loads(line)
