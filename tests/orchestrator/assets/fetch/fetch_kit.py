"""One folder, one server, and a fetch that remembers what it was told."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upx.assets.fetch import FetchProgress, Got, Network, Want, fetch
from upx.specs import UrlSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fault_server import Content

    from upx.specs import Source

# Patient enough for a busy machine; who wants to see a stall is not.
QUICK = Network(timeout=5.0, tries=4, backoff=0.005)


@dataclass
class Fetcher:
    """Fetches into ``folder/taken``; ``said`` holds every report."""

    folder: Path
    network: Network = QUICK
    cancel: threading.Event = field(default_factory=threading.Event)
    said: list[FetchProgress] = field(default_factory=list)
    on_report: Callable[[FetchProgress], None] = lambda _progress: None

    @property
    def parts(self) -> Path:
        return self.folder / "parts"

    @property
    def taken(self) -> Path:
        return self.folder / "taken"

    def fetch(self, want: Want) -> Got | None:
        return fetch(
            want, self.parts, self.network, present=self.taken.exists, take=self.take, report=self.report,
            cancel=self.cancel,
        )  # fmt: skip

    def take(self, got: Got) -> None:
        got.path.rename(self.taken)

    def report(self, progress: FetchProgress) -> None:
        self.said.append(progress)
        self.on_report(progress)

    def leave(self, want: Want, data: bytes, **note: str) -> None:
        """A part of an earlier run."""
        from upx.notes import write_note

        self.parts.mkdir(exist_ok=True)
        self.part(want).write_bytes(data)
        if note:
            write_note(self.parts / f"{want.key}.part.json", note)

    def part(self, want: Want) -> Path:
        return self.parts / f"{want.key}.part"

    def has(self, content: Content) -> bool:
        return hashlib.sha256(self.taken.read_bytes()).hexdigest() == content.sha256

    @property
    def states(self) -> list[str]:
        """Each state once, in order, without repeats."""
        states = [progress.state for progress in self.said]
        return [state for index, state in enumerate(states) if index == 0 or states[index - 1] != state]

    @property
    def notes(self) -> str:
        return " | ".join(progress.note for progress in self.said if progress.note)


def url_want(address: str, content: Content | None = None, *, size: bool = True, more: tuple[Source, ...] = ()) -> Want:
    """A want for one address; with ``content`` its sha256 is known, and its size unless not."""
    sha256, exact = (content.sha256, content.size if size else 0) if content else ("", 0)
    return Want("model: file.bin", (UrlSource(address), *more), sha256, exact)
