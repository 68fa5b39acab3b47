"""``upx ps``: list the workers that are running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import JsonFlag, QuietFlag, VerboseFlag

if TYPE_CHECKING:
    from upx.cli._results import WorkerRow
    from upx.workers.registry import WorkerInfo

app = verb_app()
EXAMPLES = """
upx ps
upx ps --json | jq -r .id
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def ps(json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> int:
    """List the workers that are running, oldest first."""
    from upx.workers.registry import list_workers

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    found = list_workers(_host.read_settings())
    console.results(*(_row(each) for each in found))
    if not found:
        console.note("upx: no workers are running")
    return 0


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
