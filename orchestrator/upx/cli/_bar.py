"""What is drawn on a terminal: a bar for each picture, each download, and for what is prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upx.assets.fetch import FetchProgress
    from upx.cli._downloads import Downloads
    from upx.result import JobProgress

_MINUTE = 60
_ENDED = {"done", "failed"}


class Bar:
    """A bar per picture in work, and one for what is prepared; drawn by rich on standard error."""

    def __init__(self) -> None:
        # rich takes 60 ms to load, which only who watches pays.
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._rich = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Terminal(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[int, Any] = {}
        self._files: dict[str, Any] = {}
        self._state: Any = None
        self._stopped = False

    def picture(self, number: int, words: str, progress: JobProgress, eta: float | None) -> None:
        """Draw one picture's bar."""
        self._drop_state()
        if number not in self._tasks:
            self._tasks[number] = self._rich.add_task("", total=None, note="")
            self._rich.start()
        tiles = f"{progress.tiles_done}/{progress.tiles} tiles{left_text(eta)}" if progress.tiles else ""
        total = progress.tiles or None
        self._rich.update(
            self._tasks[number], description=words, completed=progress.tiles_done, total=total, note=tiles
        )

    def state(self, words: str, share: float | None) -> None:
        """Draw what is being prepared; ``share`` of 1."""
        if self._state is None:
            self._state = self._rich.add_task("", total=None, note="")
            self._rich.start()
        total = None if share is None else 1.0
        self._rich.update(self._state, description=words, completed=share or 0.0, total=total)

    def download(self, progress: FetchProgress, words: str, downloads: Downloads) -> None:
        """Draw one download's bar, and where there are several one for all."""
        self._drop_state()
        if progress.state in _ENDED and progress.key in self._files:
            self._rich.remove_task(self._files.pop(progress.key))
        elif progress.state not in _ENDED:
            note = downloads.pace().lstrip(", ") if len(downloads.heard) == 1 else ""
            self._file(progress.key, words, progress.done, progress.total, note)
        if downloads.running and len(downloads.heard) > 1:
            self._file(
                "", f"{len(downloads.heard)} files", downloads.done, downloads.total, downloads.pace().lstrip(", ")
            )
        elif "" in self._files:
            self._rich.remove_task(self._files.pop(""))

    def _file(self, key: str, words: str, done: int, total: int, note: str) -> None:
        if key not in self._files:
            self._files[key] = self._rich.add_task("", total=None, note="")
            self._rich.start()
        self._rich.update(self._files[key], description=words, completed=done, total=total or None, note=note)

    def drop(self, number: int) -> None:
        """Remove one picture's bar."""
        task = self._tasks.pop(number, None)
        if task is not None:
            self._rich.remove_task(task)

    def hide(self) -> None:
        """Clear the line for somebody else's words."""
        self._rich.stop()

    def show(self) -> None:
        """Draw again, unless there is nothing to draw or it was taken away for good meanwhile."""
        if not self._stopped and self._rich.tasks:
            self._rich.start()

    def stop(self) -> None:
        """Clear the line for good."""
        self._stopped = True
        self._rich.stop()

    def _drop_state(self) -> None:
        if self._state is not None:
            self._rich.remove_task(self._state)
            self._state = None


def left_text(eta: float | None) -> str:
    """``, about 35 s left``, or nothing where nobody knows yet."""
    if eta is None:
        return ""
    from upx.cli._render import time_text

    # Tenths would claim more than anybody knows.
    seconds = max(1, round(eta))
    return f", about {seconds} s left" if seconds < _MINUTE else f", about {time_text(seconds)} left"
