"""Fill one part from one source: resume, stream, check the length, then the hash; once more when that is wrong."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from upx.assets.fetch import drive
from upx.assets.fetch.exchange import Answer, Request, ask
from upx.assets.fetch.failures import IMPORT_HINT, DropError, FailedError, WebPageError, last_word
from upx.assets.fetch.judge import Body, Heard, Whole, agreed, is_page, judge, may_resume, range_headers, validator
from upx.assets.fetch.part import length_mismatch
from upx.assets.fetch.places import expects_page, fetched, label, place_of
from upx.assets.fetch.tries import Tries
from upx.assets.fetch.want import Got
from upx.errors import CancelledError
from upx.specs import DriveSource, ManualSource

if TYPE_CHECKING:
    import threading

    from upx.assets.fetch.network import Network
    from upx.assets.fetch.part import Part
    from upx.assets.fetch.places import Place
    from upx.assets.fetch.telling import Telling
    from upx.assets.fetch.want import Want
    from upx.specs import Source

BLOCK = 256 * 1024


class Download:
    """A want and its part, on the way through the want's sources."""

    def __init__(self, want: Want, part: Part, network: Network, telling: Telling, cancel: threading.Event) -> None:
        self._want = want
        self._part = part
        self._network = network
        self._telling = telling
        self._cancel = cancel

    def run(self) -> Got:
        """The whole file, from the first source that gives it; FetchError when none does."""
        sources = fetched(self._want.sources)
        if not sources:
            raise last_word(self._want.name, [], otherwise=self._by_hand)
        self._part.load(self._cancel, self._telling.checked)
        self._telling.resumed = self._part.size
        if self._want.sha256 and self._part.size and self._part.sha256 == self._want.sha256:
            return self._got_before()
        if self._want.size and self._part.size >= self._want.size:
            self._restart()  # whole, and wrong: an earlier run's
        failures: list[tuple[str, FailedError]] = []
        for source in sources:
            try:
                return self._from(source)
            except FailedError as failure:
                failures.append((label(source), failure))
        # Without their causes: a library's texts may hold a signed address.
        raise last_word(self._want.name, failures, otherwise=self._by_hand)

    @property
    def _by_hand(self) -> str:
        """What a person can do: the manifest may say where."""
        where = [source.where for source in self._want.sources if isinstance(source, ManualSource)]
        return f"get it from {where[0]}, then `upx models import` takes the file" if where else IMPORT_HINT

    def _restart(self) -> None:
        self._part.restart()
        self._telling.done = self._telling.resumed = 0

    def _from(self, source: Source) -> Got:
        tries = Tries(self._network)
        place: Place | None = None
        wrong = 0
        while True:
            try:
                place = place or self._resolve(source)
                self._transfer(source, place)
            except WebPageError as page:
                place = self._behind(page, source, place)
            except DropError as drop:
                self._wait(tries.after(drop, self._part.size), drop)
            else:
                if self._is_right(place):
                    return self._got(source, place)
                wrong += 1
                self._restart()
                if wrong > 1:
                    raise FailedError("sent wrong bytes twice: the sha256 differs", kind="content")
                tries = Tries(self._network)
                self._telling.say("retrying", "the bytes are wrong, fetched once more")

    def _resolve(self, source: Source) -> Place:
        self._telling.say("resolving")
        place = place_of(source, self._network, self._cancel)
        if self._want.sha256 and place.sha256 and place.sha256 != self._want.sha256:
            why = f"has another file: sha256 {place.sha256[:12]}…, and {self._want.sha256[:12]}… is expected"
            raise FailedError(why, kind="content")
        return place

    def _behind(self, page: WebPageError, source: Source, place: Place | None) -> Place:
        """The file behind a page of Google Drive, once; any other page is the end of its source."""
        if place is None or not isinstance(source, DriveSource) or place.confirmed:
            raise page
        return replace(place, address=drive.confirmed(page), confirmed=True)

    def _wait(self, pause: float, drop: DropError) -> None:
        if drop.anew:
            self._restart()
        self._telling.say("retrying", drop.why)
        if self._cancel.wait(pause):
            raise CancelledError(f"{self._want.name}: cancelled")

    # ------------------------------------------------------------------------------------ one try

    def _transfer(self, source: Source, place: Place) -> None:
        """Bring the part to its full length, or raise what stopped it; bytes that came stay."""
        size = self._want.size or place.size
        resume = may_resume(self._part.note, wanted=self._want.sha256, stated=place.sha256, mark=mark_of(source))
        if self._part.size and (not resume.allowed or (size and self._part.size > size)):
            self._restart()
        if size and self._part.size == size:
            return
        self._part.require_space(size or self._want.about)
        headers = range_headers(self._part.size, resume)
        with ask(Request(place.address, headers=headers, secret=place.secret), self._network, self._cancel) as answer:
            verdict = self._judge(answer, source, place)
            if resume.if_range and not agreed(str(self._part.note.get("total", "")), verdict, self._part.size):
                self._restart()
                raise FailedError("announces two lengths for one file", kind="content")
            if isinstance(verdict, Body):
                self._receive(answer, verdict, source, place)

    def _judge(self, answer: Answer, source: Source, place: Place) -> Body | Whole:
        page_expected = expects_page(source, self._want.name)
        if not page_expected and answer.status == 200 and is_page(answer.headers):  # noqa: PLR2004
            text = answer.head_of_body(drive.PAGE_BYTES)
            raise WebPageError("sends a web page instead of the file", text, answer.address.text)
        heard = Heard(answer.status, answer.headers, answer.length, answer.open_ended)
        try:
            return judge(heard, offset=self._part.size, page_expected=page_expected)
        except FailedError as failure:
            if failure.kind == "access" and place.access_hint:
                failure.hint = place.access_hint
            raise

    def _receive(self, answer: Answer, body: Body, source: Source, place: Place) -> None:
        size = self._want.size or place.size
        if size and body.total is not None and body.total != size:
            raise length_mismatch(body.total, size)
        limit = size or body.total
        if not body.start and self._part.size:
            self._restart()
        self._part.remember(
            source=mark_of(source), validator=validator(answer.headers), sha256=place.sha256,
            address=place.shown, revision=place.revision, total="" if limit is None else str(limit),
        )  # fmt: skip
        self._telling.total = limit or self._want.about
        self._part.require_space(self._telling.total)
        self._stream(answer, limit)
        if limit is not None and self._part.size < limit:
            raise DropError(f"the connection ended after {self._part.size} of {limit} bytes")
        if limit is None and not body.vouched and not (self._want.sha256 or place.sha256):
            raise FailedError("ends without a length: cannot tell whether it is complete", kind="content")

    def _stream(self, answer: Answer, limit: int | None) -> None:
        part = self._part
        while True:
            if self._cancel.is_set():
                raise CancelledError(f"{self._want.name}: cancelled")
            block = answer.read(BLOCK)
            if not block:
                return
            if limit is not None and part.size + len(block) > limit:
                raise FailedError(f"sends more than the {limit} bytes of the file", kind="content")
            part.keep_space(limit or self._want.about)
            part.append(block)
            self._telling.fetched(part.size)

    # ------------------------------------------------------------------------------------ the end

    def _is_right(self, place: Place) -> bool:
        self._telling.say("checking")
        expected = self._want.sha256 or place.sha256
        if not expected:
            return True
        return self._part.sha256 == expected

    def _got(self, source: Source, place: Place) -> Got:
        by: Literal["manifest", "hub", ""] = "manifest" if self._want.sha256 else "hub" if place.sha256 else ""
        part = self._part
        return Got(part.path, part.sha256, part.size, source, place.shown, place.revision, by)

    def _got_before(self) -> Got:
        """What an earlier run brought in full and did not hand over."""
        note, part = self._part.note, self._part
        marks = {mark_of(source): source for source in fetched(self._want.sources)}
        source = marks.get(str(note.get("source"))) or next(iter(marks.values()))
        address, revision = str(note.get("address", "")), str(note.get("revision", ""))
        return Got(part.path, part.sha256, part.size, source, address, revision, "manifest")


def mark_of(source: Source) -> str:
    """What tells sources apart in a note, where an address with a login must not stand."""
    return hashlib.sha256(repr(source).encode()).hexdigest()
