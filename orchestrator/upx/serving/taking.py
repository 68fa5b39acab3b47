"""Files that clients send to a box that lacks them: which are wanted, and each worker's line for their bytes.

The other end of ``upx_protocol.clerk``, one thread a worker. A file is wanted once a load has failed for want of it,
and is known by the digest that this machine's own manifest states; nothing that a client says names a place here.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from upx.assets.incoming import Incoming
from upx.errors import UnusableWeightsError, UpxError
from upx_protocol.files import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upx.assets.obtain import Need
    from upx.models.shelf import Shelf

log = logging.getLogger("upx.serve")

MAX_LINE = 65_536
# What a worker may ask, by the first key, and how its facts are read.
QUESTIONS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "begin": {"begin": int, "sha256": str, "size": int, "client": str},
    "chunk": {"chunk": int, "nbytes": int},
    "end": {"end": int},
}
# A header has room for no more; what is still missing then is wanted after these.
MOST_WANTED = 64
# What nobody came back for, a fetch's leavings too.
STALE_PART_S = 7 * 86400.0


class Taking:
    """What this box wants. May be called from several threads."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._needs: dict[str, Need] = {}

    def want(self, needs: Sequence[Need]) -> list[dict[str, Any]]:
        """Take these from whoever has them; how they are told to clients."""
        chosen = needs[:MOST_WANTED]
        self._needs.update({need.asset.sha256: need for need in chosen})
        return [
            {"role": need.asset.role, "name": need.asset.file, "sha256": need.asset.sha256, "size": need.asset.size}
            for need in chosen
        ]

    def incoming(self, sha256: str, size: int, sender: str) -> Incoming:
        """The file of that digest, to be begun; UnusableWeightsError for one that nobody here wants."""
        need = self._needs.get(sha256)
        if need is None:
            raise UnusableWeightsError(f"no file of sha256 {sha256[:12]} is wanted here", hint="load its model first")
        self._shelf.store.sweep_parts(STALE_PART_S)
        return Incoming(need, self._shelf.store, self._shelf.obtainer(), size=size, sender=sender)


class TakingLine:
    """A worker's questions about files, answered on a thread of their own until its end of the socket is closed."""

    def __init__(self, taking: Taking) -> None:
        self._taking = taking
        self._coming: dict[int, Incoming] = {}
        self._ours, self.theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="upx-taking", daemon=True)

    def start(self) -> None:
        """Begin to answer; ``theirs`` is the worker's alone from here on."""
        self.theirs.close()
        self._thread.start()

    def close(self) -> None:
        """Give up a line that was never used."""
        for end in (self._ours, self.theirs):
            end.close()

    def _serve(self) -> None:
        try:
            # A line that is no question ends it: what writes such a thing is no worker of ours any more.
            with self._ours, self._ours.makefile("rb") as lines, suppress(OSError, ValueError):
                while line := lines.readline(MAX_LINE):
                    answer = self._answered(*_question(line), lines)
                    if answer is not None:
                        self._ours.sendall(json.dumps(answer).encode() + b"\n")
        finally:
            for number in list(self._coming):
                self._drop(number)

    def _answered(self, what: str, question: dict[str, Any], lines: BinaryIO) -> dict[str, Any] | None:
        number = question[what]
        if what == "end":
            self._drop(number)
            return None
        data = _exactly(lines, question["nbytes"]) if what == "chunk" else b""
        resumed = self._coming[number].resumed if number in self._coming else 0
        try:
            if what == "chunk":
                offset = self._coming[number].append(data)
                if self._coming[number].over:
                    self._drop(number)
                return {"offset": offset}
            return self._begin(number, question["sha256"], question["size"], question["client"])
        except UpxError as error:
            self._drop(number)
            log.warning("a file of a client's is not taken: %s", error)
            # What came before may have been wrong: once more from its beginning.
            again = isinstance(error, UnusableWeightsError) and resumed > 0
            return {"failure": "transient" if again else "input", "retryable": again, "message": said(error)}
        except Exception as error:
            self._drop(number)
            log.exception("a file of a client's is not taken")
            return {"failure": "transient", "retryable": False, "message": f"{type(error).__name__}: {error}"}

    def _begin(self, number: int, sha256: str, size: int, client: str) -> dict[str, Any]:
        incoming = self._taking.incoming(sha256, size, client)
        offset = incoming.begin()
        if offset is None:
            return {"later": incoming.so_far()}
        if offset < size:
            self._coming[number] = incoming
            log.info("a client sends %s, from %d on", sha256[:12], offset)
        return {"offset": offset}

    def _drop(self, number: int) -> None:
        incoming = self._coming.pop(number, None)
        if incoming is not None:
            incoming.close()


def said(error: UpxError) -> str:
    """An error in one line, with what to do."""
    return f"{error} ({error.hint})" if error.hint else str(error)


def _question(line: bytes) -> tuple[str, dict[str, Any]]:
    """What a worker asks; ValueError for a line that is no question, whatever else it is."""
    try:
        question: Any = json.loads(line)
        what: str = next(iter(question))
        return what, {name: read(question[name]) for name, read in QUESTIONS[what].items()}
    except (RecursionError, TypeError, KeyError, StopIteration, OverflowError) as error:
        raise ValueError("no question") from error


def _exactly(lines: BinaryIO, nbytes: int) -> bytes:
    if not 0 < nbytes <= CHUNK:
        raise ValueError(f"a chunk of {nbytes} bytes")
    data = lines.read(nbytes)
    if len(data) < nbytes:
        raise ValueError("the line has ended")
    return data
