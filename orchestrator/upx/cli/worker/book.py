"""``upx worker add``, ``list`` and ``rm``: the boxes that this machine knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._options import JsonFlag, QuietFlag

if TYPE_CHECKING:
    from upx.cli._results import BoxRow
    from upx.remote.boxes import Book, Box


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the box.")],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="tcp://HOST:PORT.")],
    *,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Its server key: upx key show, on the box.")],
    offline: Annotated[bool, typer.Option("--offline", help="Do not try to reach it now.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Know a box from now on, its key pinned: one that shows another key later is refused.

    It is reached at once, to learn what it serves; nothing is kept when it refuses.
    """
    from upx.remote.boxes import parse_box
    from upx.remote.visit import visit

    box = parse_box(name, address, key)
    book, console = _book(), Console(as_json=json, quiet=quiet)
    if not offline:
        book.check(box)
        box = visit(box, _host.read_settings()).box
    console.results(_row(book.add(box), "added"))
    return 0


def list_boxes(json: JsonFlag = False, quiet: QuietFlag = False) -> int:
    """List the boxes that this machine knows."""
    return list_rows(Console(as_json=json, quiet=quiet))


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The box to forget.")],
    json: JsonFlag = False,
) -> int:
    """Forget a box and its key."""
    Console(as_json=json).results(_row(_book().remove(name), "removed"))
    return 0


def list_rows(console: Console) -> int:
    """Print the boxes."""
    boxes = _book().all()
    console.results(*(_row(box) for box in boxes))
    if not boxes:
        console.note("upx: no boxes are known; upx worker add NAME tcp://HOST:PORT --key KEY")
    return 0


def _book() -> Book:
    from upx.remote.boxes import Book

    return Book(_host.read_settings())


def _row(box: Box, state: str = "known") -> BoxRow:
    from upx.cli._results import BoxRow

    return BoxRow(box.name, box.endpoint, box.backend, box.key, state)
