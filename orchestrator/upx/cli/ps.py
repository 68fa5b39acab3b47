"""``upx ps``: list the workers that are running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import JsonFlag, OnOption, QuietFlag, VerboseFlag, parse_on

if TYPE_CHECKING:
    from upx.config import Settings
    from upx.remote.boxes import Box
    from upx.remote.sights import Sight

app = verb_app()
EXAMPLES = """
upx ps
upx ps --on any                 those of every box that upx worker lists, too
upx ps --json | jq -r .id
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def ps(on: OnOption = None, json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> int:
    """List the workers that are running, oldest first; with --on those of boxes too.

    QUEUE: tiles that wait or are computed. RATE: megapixels of input for each second that it has computed.
    """
    from upx.remote.boxes import named_boxes
    from upx.workers import registry

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    settings = _host.read_settings()
    boxes = named_boxes(parse_on(on), settings)
    # ZeroMQ takes longer to load than this command takes to see that there is nobody to ask.
    seen = _look(settings, boxes) if boxes or registry.list_workers(settings) else []
    if not seen:
        console.note("upx: no workers are running")
        return 0
    return _show(seen, console)


def _look(settings: Settings, boxes: list[Box]) -> list[Sight]:
    from upx.remote.sights import Lookout

    with Lookout(settings, boxes, here=True) as lookout:
        return lookout.look()


def _show(seen: list[Sight], console: Console) -> int:
    import upx.cli._workers_lines  # noqa: F401  # pyright: ignore[reportUnusedImport]  # teaches the renderer
    from upx.cli._workers import worker_row

    console.results(*(worker_row(each) for each in seen))
    return _failed(seen, console)


def _failed(seen: list[Sight], console: Console) -> int:
    """Say why boxes could not be asked; the exit code is that of the last."""
    code = 0
    for each in seen:
        if each.error is not None and each.box:
            console.failure(each.error, about=each.box)
            code = each.error.exit_code
    return code
