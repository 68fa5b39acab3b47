"""``upx ps``: list the workers that are running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import JsonFlag, OnOption, QuietFlag, VerboseFlag, parse_on

if TYPE_CHECKING:
    from upx.cli._results import WorkerRow
    from upx.config import Settings
    from upx.remote.visit import Visit
    from upx.workers.registry import WorkerInfo

app = verb_app()
EXAMPLES = """
upx ps
upx ps --on any                 those of every box that upx worker lists, too
upx ps --json | jq -r .id
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def ps(on: OnOption = None, json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> int:
    """List the workers that are running, oldest first; with --on those of boxes too."""
    from upx.workers.registry import list_workers

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    settings = _host.read_settings()
    here = [_row(each) for each in list_workers(settings)]
    there, failed = _far_rows(parse_on(on), settings, console)
    console.results(*here, *there)
    if not here and not there:
        console.note("upx: no workers are running")
    return failed


def _far_rows(on: tuple[str, ...], settings: Settings, console: Console) -> tuple[list[WorkerRow], int]:
    """The workers of boxes, and the exit code: that of the last box that could not be asked."""
    from upx.errors import UpxError
    from upx.remote.boxes import Book
    from upx.remote.visit import survey

    rows: list[WorkerRow] = []
    failed, book = 0, Book(settings)
    names = [box.name for box in book.all()] if "any" in on else [name for name in on if name != "local"]
    for box in [book.get(name) for name in names]:
        try:
            rows += [_far_row(each) for each in survey(box, settings, measure=False)]
        except UpxError as error:
            console.failure(error, about=box.name)
            failed = error.exit_code
    return rows, failed


def _far_row(each: Visit) -> WorkerRow:
    from upx.cli._results import WorkerRow

    # We are one of its hosts while we ask.
    hosts = max(0, each.pong.hosts - 1)
    return WorkerRow(
        id=f"{each.box.name}:{each.box.port}",
        backend=each.box.backend,
        model="",
        device=each.ready.device_name or each.ready.device,
        state="in use" if hosts else "idle",
        hosts=hosts,
        tied=False,
        keep_alive=None,
        idle=0.0,
        age=0.0,
        memory=each.pong.memory,
        pid=0,
    )


def _row(each: WorkerInfo) -> WorkerRow:
    from upx.cli._results import WorkerRow

    return WorkerRow(
        id=each.name,
        backend=each.backend,
        model=each.model,
        device=each.device,
        state="starting" if each.starting else "in use" if each.hosts else "idle",
        hosts=each.hosts,
        tied=each.tied,
        keep_alive=each.idle_s,
        idle=round(each.idle, 1),
        age=round(max(0.0, time.time() - each.started), 1) if each.started else 0.0,
        memory=each.memory,
        pid=each.pid,
    )
