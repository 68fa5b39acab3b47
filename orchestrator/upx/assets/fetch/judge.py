"""What an answer means for the part that is there. Pure: status and headers in, a verdict or an error out."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

from upx.assets.fetch.failures import IMPORT_HINT, DropError, FailedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

# A server that asks for more patience is asked again after that all the same.
MAX_PAUSE_S = 60.0
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})")
_AGAIN = {408, 425, 429}
_GONE = {404, 410}
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416


@dataclass(frozen=True, slots=True)
class Body:
    """The answer holds the file from ``start`` on.

    ``total``: the whole file's bytes, None where the server does not say. ``vouched``: its end will be told from a
    broken connection.
    """

    start: int
    total: int | None
    vouched: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """There is no more: the part is as long as the file."""


def agreed(announced: str, verdict: Body | Whole, offset: int) -> bool:
    """Whether a server that continues a file says the same length as before, as far as it says any."""
    total = offset if isinstance(verdict, Whole) else verdict.total if verdict.start else None
    return not announced or total is None or announced == str(total)


@dataclass(frozen=True, slots=True)
class Heard:
    """What of an answer matters: ``length`` of its body, if announced; ``open_ended`` when only a close ends it."""

    status: int
    headers: Message
    length: int | None
    open_ended: bool


def judge(heard: Heard, *, offset: int, page_expected: bool) -> Body | Whole:
    """What to do with an answer to a request from ``offset`` on; DropError or FailedError when nothing."""
    if heard.status == _UNSATISFIABLE and offset:
        return _unsatisfied(heard, offset)
    refuse(heard)
    encoding = (heard.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise FailedError(f"sends it encoded ({encoding[:20]!r}), unasked", kind="content")
    if not page_expected and is_page(heard.headers):
        raise FailedError("sends a web page instead of the file", hint=IMPORT_HINT, kind="content")
    if heard.status == _PARTIAL:
        return _partial(heard, offset)
    return Body(0, heard.length, vouched=not heard.open_ended)


@dataclass(frozen=True, slots=True)
class Resume:
    """Whether what is there may be continued; ``if_range`` is what must not have changed meanwhile."""

    allowed: bool
    if_range: str = ""


def may_resume(note: Mapping[str, object], *, wanted: str, stated: str, mark: str) -> Resume:
    """A part whose content decides may be continued from anywhere, another only from where it came, unchanged."""
    if wanted or (stated and note.get("sha256") == stated):
        return Resume(allowed=True)
    seal = note.get("validator")
    if note.get("source") == mark and isinstance(seal, str) and seal:
        return Resume(allowed=True, if_range=seal)
    return Resume(allowed=False)


def range_headers(offset: int, resume: Resume) -> dict[str, str]:
    """What asks for the rest alone."""
    if not offset:
        return {}
    return {"Range": f"bytes={offset}-"} | ({"If-Range": resume.if_range} if resume.if_range else {})


def refuse(heard: Heard) -> None:
    """DropError or FailedError when the status says that no file comes."""
    status = heard.status
    if status in {_OK, _PARTIAL}:
        return
    if status in {401, 403, 407}:
        who = "the proxy" if status == 407 else "it"  # noqa: PLR2004
        hint = f"the address refuses; {IMPORT_HINT}"
        raise FailedError(f"{who} refuses access ({status})", hint=hint, kind="access" if status != 407 else "network")  # noqa: PLR2004
    if status in _GONE:
        raise FailedError(f"has no such file ({status})", hint=IMPORT_HINT)
    if status in _AGAIN or status >= 500:  # noqa: PLR2004
        raise DropError(f"answers {status}", pause=retry_after(heard.headers, now=time.time()))
    raise FailedError(f"answers {status}", hint=IMPORT_HINT)


def is_page(headers: Message) -> bool:
    """Whether a page for people came."""
    return headers.get_content_type() in {"text/html", "application/xhtml+xml"} if headers["Content-Type"] else False


def validator(headers: Message) -> str:
    """What tells this state of the file from another: a strong ETag, else its date; empty without either."""
    etag = (headers.get("ETag") or "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    date = (headers.get("Last-Modified") or "").strip()
    return date if date.isascii() and date.isprintable() and parsedate_tz(date) else ""


def retry_after(headers: Message, *, now: float) -> float | None:
    """Seconds that the server wants to be left alone for; None where it does not say, at most MAX_PAUSE_S."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    elif (date := parsedate_tz(text)) is not None:
        try:
            seconds = mktime_tz(date) - now
        except (OverflowError, ValueError):
            return None
    else:
        return None
    return min(max(seconds, 0.0), MAX_PAUSE_S)


def _unsatisfied(heard: Heard, offset: int) -> Whole:
    match = _UNSATISFIED.fullmatch((heard.headers.get("Content-Range") or "").strip())
    if match and int(match[1]) == offset:
        return Whole()
    raise DropError("cannot continue what is there (416)", anew=True)


def _partial(heard: Heard, offset: int) -> Body:
    """A continuation, which has to start where the part ends and to go on to the file's end."""
    match = _CONTENT_RANGE.fullmatch((heard.headers.get("Content-Range") or "").strip())
    if not offset:
        raise FailedError("sends a piece of the file, unasked", kind="content")
    if match is None or int(match[1]) != offset:
        raise DropError("sends another piece of the file than was asked for", anew=True)
    end, total = int(match[2]) + 1, None if match[3] == "*" else int(match[3])
    if end <= offset or (total is not None and end > total):
        raise DropError("sends a piece of the file that cannot be", anew=True)
    return Body(offset, total, vouched=total is not None)
