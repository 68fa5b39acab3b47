"""What people see while a command works: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from upx.cli._bar import Bar, left_text
from upx.cli._console import shown
from upx.cli._meter import Meter

if TYPE_CHECKING:
    from types import TracebackType

    from upx.assets.fetch import FetchProgress
    from upx.cli._console import Console
    from upx.cli._downloads import Downloads
    from upx.result import JobProgress

# What ends sooner shows no bar: it would flicker, and rich alone takes longer to load.
BAR_AFTER_S = 0.5
LINE_EVERY_S = 5.0
# A tile may take minutes: what is shown moves on meanwhile.
TICK_S = 1.0
_STAGES = {
    "decode": "reading",
    "start": "waiting for a worker",
    "inference": "enlarging",
    "encode": "writing",
    "done": "done",
}


class Display:
    """The progress of one command, told from any thread; nothing is shown with ``-q``."""

    def __init__(self, console: Console, *, pictures: int = 0) -> None:
        self._console = console
        self._meter = Meter(pictures)
        self._lock = threading.RLock()
        self._born = self._line_at = time.monotonic()
        self._said = ""
        self._bar: Bar | None = None
        self._downloads: Downloads | None = None
        self._is_terminal = sys.stderr.isatty() and not console.quiet
        self._running: dict[int, tuple[str, JobProgress]] = {}
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def event(self, event: object) -> None:
        """Hear a report of the host."""
        from upx.assets.fetch.want import FetchProgress
        from upx.cli._events import tell

        if isinstance(event, FetchProgress):
            with self._lock:
                self._fetching(event, time.monotonic())
            return
        told = tell(event)
        if not told.state or self._console.verbose:
            self._console.detail(f"upx: {told.words}")
        if told.state:
            with self._lock:
                self._state(told.words, told.share)

    def _fetching(self, progress: FetchProgress, now: float) -> None:
        """Hear of a download: a bar for each and one for all, or a line every few seconds."""
        from upx.cli._downloads import Downloads, words

        self._downloads = self._downloads or Downloads()
        before = self._downloads.heard.get(progress.key)
        self._downloads.update(progress, now)
        if before is None or before.state != progress.state:
            self._console.detail(f"upx: {words(progress)}")
        if self._show_bar(now):
            self._bar_now().download(progress, words(progress), self._downloads)
        elif not self._is_terminal and now - self._line_at >= LINE_EVERY_S:
            self._line_at = now
            self._console.note(f"upx: {self._downloads.line()}")

    def progress(self, picture: int, name: str, progress: JobProgress) -> None:
        """Hear how far one picture is."""
        with self._lock:
            now = time.monotonic()
            self._running[picture] = name, progress
            if progress.tiles:
                self._meter.update(picture, progress.tiles_done, progress.tiles, now)
            self._show(picture, now)
            self._start_ticking()

    def finish(self, picture: int) -> None:
        """One picture has ended."""
        with self._lock:
            self._meter.finish(picture)
            self._running.pop(picture, None)
            if self._bar is not None:
                self._bar.drop(picture)

    def close(self) -> None:
        """Take the bar away."""
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
                self._console.before = self._console.after = _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _show(self, picture: int, now: float) -> None:
        name, progress = self._running[picture]
        words, eta = f"{shown(name)}: {_STAGES[progress.stage]}", self._meter.eta(now)
        if self._show_bar(now):
            self._bar_now().picture(picture, words, progress, eta)
        elif not self._is_terminal and now - self._line_at >= LINE_EVERY_S:
            self._line_at = now
            tiles = f", {progress.tiles_done}/{progress.tiles} tiles{left_text(eta)}" if progress.tiles else ""
            self._console.note(f"upx: {words}{tiles}")

    def _start_ticking(self) -> None:
        if self._ticker is None and not self._console.quiet and not self._ended.is_set():
            self._ticker = threading.Thread(target=self._tick, name="upx-progress", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_S):
            with self._lock:
                for picture in list(self._running):
                    self._show(picture, time.monotonic())

    def _state(self, words: str, share: float | None) -> None:
        if self._show_bar(time.monotonic()):
            self._bar_now().state(words, share)
        elif not self._is_terminal and not self._console.verbose and words != self._said:
            self._said = words
            self._console.note(f"upx: {words}")

    def _show_bar(self, now: float) -> bool:
        return self._is_terminal and not self._ended.is_set() and now - self._born >= BAR_AFTER_S

    def _bar_now(self) -> Bar:
        if self._bar is None:
            self._bar = Bar()
            # Results and bar may share a terminal: the bar steps aside for every line.
            self._console.before, self._console.after = self._bar.hide, self._bar.show
        return self._bar


def _nothing() -> None:
    """No bar is shown."""
