"""``upx worker test``: what a box says of itself, and how far away it is."""

from __future__ import annotations

from typing import Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._options import JsonFlag, QuietFlag


def probe(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Boxes; all of them by default.")
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Measure latency and bandwidth to a box, and ask each of its workers for its device and models."""
    from upx.cli._results import BoxTest
    from upx.errors import UsageError
    from upx.remote.boxes import Book
    from upx.remote.visit import survey

    settings = _host.read_settings()
    book, console = Book(settings), Console(as_json=json, quiet=quiet)
    boxes = [book.get(name) for name in names] if names else book.all()
    if not boxes:
        raise UsageError("no boxes are known", hint="upx worker add NAME tcp://HOST:PORT --key KEY")
    for box in boxes:
        for each in survey(box, settings):
            console.results(
                BoxTest(
                    name=box.name,
                    endpoint=each.box.endpoint,
                    backend=each.box.backend,
                    device=each.ready.device,
                    device_name=each.ready.device_name,
                    protocol=str(each.protocol),
                    latency_ms=round(1000 * each.latency, 2),
                    mbit_per_second=round(each.rate * 8 / 1e6, 1),
                    memory=each.ready.memory_total,
                    memory_free=each.ready.memory_free,
                    # We are one of them while we ask.
                    hosts=max(0, each.pong.hosts - 1),
                    queued=each.pong.queued,
                    models=each.ready.models,
                )
            )
    return 0
