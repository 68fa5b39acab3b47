"""``upx worker test``: what a box says of itself, and how far away it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._options import JsonFlag, QuietFlag

if TYPE_CHECKING:
    from upx.cli._results import BoxTest
    from upx.remote.visit import Visit


def probe(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Boxes; all of them by default.")
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Measure latency and bandwidth to a box, and ask each of its workers for its device and models."""
    from upx.errors import UpxError, UsageError
    from upx.remote.boxes import Book
    from upx.remote.visit import survey

    settings = _host.read_settings()
    book, console = Book(settings), Console(as_json=json, quiet=quiet)
    boxes = [book.get(name) for name in names] if names else book.all()
    if not boxes:
        raise UsageError("no boxes are known", hint="upx worker add NAME tcp://HOST:PORT --key KEY")
    code = 0
    for box in boxes:
        try:
            for each in survey(box, settings):
                console.results(_row(box.name, each))
        except UpxError as error:
            # The others are asked all the same.
            console.failure(error, about=box.name)
            code = error.exit_code
    return code


def _row(name: str, found: Visit) -> BoxTest:
    from upx.cli._results import BoxTest

    return BoxTest(
        name=name,
        endpoint=found.box.endpoint,
        backend=found.box.backend,
        device=found.ready.device,
        device_name=found.ready.device_name,
        protocol=str(found.protocol),
        latency_ms=round(1000 * found.latency, 2),
        mbit_per_second=round(found.rate * 8 / 1e6, 1),
        memory=found.ready.memory_total,
        memory_free=found.ready.memory_free,
        # We are one of them while we ask.
        hosts=max(0, found.pong.hosts - 1),
        queued=found.pong.queued,
        models=found.ready.models,
    )
