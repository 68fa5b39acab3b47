"""Why a source did not give its file: for a moment, or for good.

A ``Drop`` is tried again. A ``Failed`` sends the download to the next source; when none is left, ``last_word`` makes
one error of them all. Neither leaves this package, and neither holds anything secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.errors import AccessError, FetchError

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind: TypeAlias = Literal["access", "content", "other", "network"]
# The most telling first: what a person can do something about.
_TELLING: tuple[Kind, ...] = ("access", "content", "other", "network")

IMPORT_HINT = "fetch it in a browser or on another machine, then `upx models import` takes the file"
NETWORK_HINT = (
    "check the network and the proxy; without one, `upx models import` takes a file that was fetched elsewhere, "
    "and --offline uses only what is here"
)


class DropError(Exception):
    """This try brought no whole file, another may.

    ``pause``: seconds that the server asked for. ``slow``: what came was too little to count as progress.
    ``anew``: what is there cannot be continued.
    """

    def __init__(self, why: str, *, pause: float | None = None, slow: bool = False, anew: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.pause = pause
        self.slow = slow
        self.anew = anew


class UnreachableError(DropError):
    """Nobody answered at all: no such host, no route, refused."""


class FailedError(Exception):
    """This source does not give the file."""

    def __init__(self, why: str, *, hint: str = "", kind: Kind = "other") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.kind: Kind = kind


class WebPageError(FailedError):
    """A page for people came instead of the file; ``page`` is its beginning, ``address`` where it came from."""

    def __init__(self, why: str, page: str, address: str) -> None:
        super().__init__(why, hint=IMPORT_HINT, kind="content")
        self.page = page
        self.address = address


def last_word(name: str, failures: Sequence[tuple[str, FailedError]], *, otherwise: str = IMPORT_HINT) -> FetchError:
    """One error for all sources of ``name``: the class and hint of the most telling, every reason in one line.

    ``otherwise`` is the hint where the most telling has none of its own.
    """
    if not failures:
        return FetchError(f"{name}: nobody offers it for fetching", hint=otherwise)
    telling = min((failure for _, failure in failures), key=lambda failure: _TELLING.index(failure.kind))
    reasons = "; ".join(f"{where}: {failure.why}" for where, failure in failures)
    kind = AccessError if telling.kind == "access" else FetchError
    hint = otherwise if telling.hint in {"", IMPORT_HINT} else telling.hint
    return kind(f"{name}: cannot be fetched: {reasons}", hint=hint)
