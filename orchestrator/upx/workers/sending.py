"""Sends a box the files that it wants and this machine has: one after the other, under a window, from where it broke.

    Want ──> a thread looks for them ──> Offer ──> Taken(offset, window) ──> Chunk… ──> Taken … ──> the next
                                           ^            │ window 0: somebody else sends it
                                           └────────────┘

Belongs to the I/O thread. Nothing that a box says is trusted: it gets files of the model that it is to load, which
``Supply`` knows by their digests, and what fits nothing that was sent is passed over.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from upx.errors import UpxError
from upx.workers.events import LoadProgress
from upx_protocol.files import CHUNK, FILES, Chunk, Offer, Taken, Want
from upx_protocol.messages import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from upx.workers.events import Event
    from upx.workers.happenings import Happening
    from upx_protocol.messages import Message, Wanted

log = logging.getLogger("upx.workers")

# No box may make us hold more than that for it.
MOST_WINDOW = 32 << 20
# Chunks a turn of the I/O thread: a disk may be slow, and every other link waits meanwhile.
AT_A_TIME = 8
# A file that another host sends, or that the box wants once more, is offered again after so long, so often.
AGAIN_S, TRIES = 1.0, 5
# Progress is told no more often than a person can read.
TELL_S = 0.1
NAME_LENGTH = 60


class Supply(Protocol):
    """What this machine may send."""

    def __call__(self, wanted: Sequence[Wanted]) -> Mapping[str, Path]:
        """Digest to path, verified; UpxError where one of them is not here, or may not be passed on. May take long."""
        ...


class Say(Protocol):
    """A conversation's way to its worker."""

    def __call__(self, message: Message, arrays: Sequence[NDArray[np.uint8]] = ()) -> bool:
        """False where the worker takes nothing at the moment."""
        ...


@dataclass(slots=True)
class Flow:
    """How far one file is: ``taken`` of ``size`` bytes are there, ``sent`` are or are on their way."""

    size: int
    taken: int = 0
    sent: int = 0
    window: int = 0

    def answered(self, offset: int, window: int) -> bool:
        """What the box says of it; False for what cannot be."""
        opened = self.window > 0
        if not (self.taken < offset <= self.sent if opened else 0 <= offset <= self.size):
            return False
        if not opened:
            self.sent = offset
        self.taken, self.window = offset, max(0, min(window, MOST_WINDOW))
        return True

    def due(self) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of each chunk that may go out now; ``sent`` is to follow."""
        while self.sent < self.size:
            nbytes = min(CHUNK, self.size - self.sent)
            if self.sent + nbytes - self.taken > self.window:
                return
            yield self.sent, nbytes


@dataclass(slots=True)
class _Current:
    """The file that is being sent: under which number, how far, and when it is to be offered again (0: not)."""

    wanted: Wanted
    path: Path
    flow: Flow
    number: int = -1
    again: float = 0.0
    tries: int = 0
    seen: int = 0


class Sending:
    """``number`` gives an id that was not used before; ``advanced`` hears that the box got on with it.

    ``load`` says the load again, once all is there. ``failure``: why that will not be, in the words of both sides.
    """

    def __init__(
        self,
        name: str,
        supply: Supply | None,
        *,
        say: Say,
        number: Callable[[], int],
        load: Callable[[], None],
        advanced: Callable[[float], None],
        report: Callable[[Event], None],
    ) -> None:
        self._name, self._supply = name, supply
        self._say, self._number, self._load = say, number, load
        self._advanced, self._report = advanced, report
        self.features = (FILES,) if supply is not None else ()
        self.failure: Failed | None = None
        self._awaited = -1
        self._sought: queue.SimpleQueue[Mapping[str, Path] | str] = queue.SimpleQueue()
        self._waiting: deque[Wanted] = deque()
        self._paths: Mapping[str, Path] = {}
        self._sent: set[str] = set()
        self._current: _Current | None = None
        self._why = ""
        self._turned, self._chunks = 0.0, AT_A_TIME
        self._told = 0.0
        self._untold: tuple[str, float, float] | None = None

    def reset(self) -> None:
        """The session is another: the box says anew what it lacks, and where to go on."""
        self._current = None
        self._waiting.clear()
        self._sought, self._paths = queue.SimpleQueue(), {}
        self._sent.clear()
        self.failure, self._awaited, self._untold = None, -1, None

    def expect(self, load: int) -> None:
        """A load of that number is asked for, and may be answered by what it wants."""
        self._awaited = load

    def want(self, message: Want, now: float) -> list[Happening]:
        """A box says what it lacks for the load."""
        if message.id != self._awaited or self._waiting or self._current is not None:
            return []
        self._why = message.message
        stubborn = [each.name for each in message.files if each.sha256 in self._sent]
        if self._supply is None or not message.files or stubborn:
            self._fail(f"{', '.join(stubborn)[:NAME_LENGTH] or 'nothing'} was sent")
            return []
        self._waiting.extend(message.files)
        self._advanced(now)
        sought = self._sought
        # A digest of gigabytes takes seconds, in which tiles of other workers must not wait.
        threading.Thread(
            target=_seek, args=(self._supply, message.files, sought), name="upx-supply", daemon=True
        ).start()
        return []

    def taken(self, message: Taken, now: float) -> list[Happening]:
        """The box has taken so much of the file."""
        current = self._current
        if current is None or message.id != current.number or not current.flow.answered(message.offset, message.window):
            return []
        if message.offset > current.seen:
            current.seen = message.offset
            self._advanced(now)
        what = "sending" if current.flow.window else "another host sends"
        stage, whole = f"{what} {current.wanted.name[:NAME_LENGTH]}", current.flow.taken >= current.flow.size
        self.tell(stage, current.flow.taken, current.flow.size, now, at_once=whole)
        if current.flow.taken >= current.flow.size:
            self._sent.add(current.wanted.sha256)
            self._current = None
            self._next(now)
        elif current.flow.window:
            self._push(current, now)
        else:
            current.again = now + AGAIN_S
        return []

    def failed(self, message: Failed, now: float) -> None:
        """A failure that may be about the file that is being sent."""
        current = self._current
        if current is None or message.id != current.number:
            return
        current.tries += 1
        if message.retryable and current.tries < TRIES:
            current.again, current.flow = now + AGAIN_S, Flow(current.flow.size)
        else:
            self._fail(f"{current.wanted.name} was not taken: {message.message}")

    def turn(self, now: float) -> None:
        """Whatever is due without a message."""
        if self._untold is not None:
            self.tell(*self._untold, now)
        while not self._sought.empty():
            found = self._sought.get()
            if isinstance(found, str):
                self._fail(f"nothing was sent from here: {found}")
            else:
                self._paths = found
                self._next(now)
        current = self._current
        if current is not None and current.again and now >= current.again:
            self._offer(current, now)
        elif current is not None and current.flow.window:
            self._push(current, now)

    def tell(self, stage: str, done: float, total: float, now: float, *, at_once: bool = False) -> None:
        """Report how far the load is, no more often than a person can read; ``turn`` tells what was held back."""
        due = at_once or now - self._told >= TELL_S
        self._untold = None if due else (stage, done, total)
        if due:
            self._told = now
            self._report(LoadProgress(self._name, stage, done, total))

    def _next(self, now: float) -> None:
        """Offer the next file, or say that all are there."""
        if not self._waiting:
            self._load()
            return
        wanted = self._waiting.popleft()
        path = self._paths[wanted.sha256]
        try:
            size = path.stat().st_size
        except OSError as error:
            self._fail(f"{wanted.name} cannot be read here: {error.strerror}")
            return
        self._current = _Current(wanted, path, Flow(size))
        self._advanced(now)
        self._offer(self._current, now)

    def _offer(self, current: _Current, now: float) -> None:
        current.number, current.again, current.flow = self._number(), 0.0, Flow(current.flow.size)
        if not self._say(Offer(current.number, current.wanted.sha256, current.flow.size)):
            current.again = now + AGAIN_S

    def _push(self, current: _Current, now: float) -> None:
        """Send a few chunks a turn, as the window has room for them and the connection takes them.

        The box answers each chunk, so that its window is full after a few answers, and stays so. A box that answers
        seldom has the next ones when time has passed.
        """
        if now != self._turned:
            self._turned, self._chunks = now, AT_A_TIME
        if not self._chunks:
            return
        try:
            # Opened each time: a conversation that is given up has nothing to close.
            with current.path.open("rb") as file:
                file.seek(current.flow.sent)
                for offset, nbytes in itertools.islice(current.flow.due(), self._chunks):
                    data = file.read(nbytes)
                    if len(data) < nbytes:
                        self._fail(f"{current.wanted.name} was cut short here while it was sent")
                        return
                    if not self._say(Chunk(current.number, offset, ()), [np.frombuffer(data, np.uint8)]):
                        return
                    current.flow.sent += nbytes
                    self._chunks -= 1
        except OSError as error:
            self._fail(f"{current.wanted.name} cannot be read here: {error.strerror}")

    def _fail(self, why: str) -> None:
        """Say so in the words of both sides, those that are news first."""
        self._current = None
        self._waiting.clear()
        self.failure = Failed(self._awaited, 0, "input", message=f"{why}; it lacks them: {self._why}")


def _seek(supply: Supply, wanted: Sequence[Wanted], sought: queue.SimpleQueue[Mapping[str, Path] | str]) -> None:
    try:
        sought.put(supply(wanted))
    except UpxError as error:
        sought.put(f"{error} ({error.hint})" if error.hint else str(error))
    except Exception as error:
        log.exception("what a box wants cannot be looked for")
        sought.put(f"{type(error).__name__}: {error}")
