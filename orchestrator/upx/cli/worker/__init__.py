"""``upx worker``: serve this machine to others; keep, test and forget the boxes that serve this one."""

from __future__ import annotations

import typer

from upx.cli._console import Console
from upx.cli._help import VerbCommand, VerbGroup, verb_app
from upx.cli._options import JsonFlag
from upx.cli.worker.book import add, list_boxes, list_rows, remove
from upx.cli.worker.probe import probe
from upx.cli.worker.serve import drain, serve

app = verb_app()
EXAMPLES = """
upx worker serve span --listen tcp://0.0.0.0:7600       on the box, after upx key allow
upx worker add attic tcp://192.168.1.20:7600 --key 9c…  on the client, with the box's key
upx worker test attic
upx up photo.jpg --on attic
"""


@app.callback(cls=VerbGroup, invoke_without_command=True, epilog=EXAMPLES)
def worker(ctx: typer.Context, json: JsonFlag = False) -> int:
    """Serve this machine to others; keep, test and forget the boxes that serve this one."""
    return list_rows(Console(as_json=json)) if ctx.invoked_subcommand is None else 0


app.command("serve", cls=VerbCommand)(serve)
app.command("drain", cls=VerbCommand)(drain)
app.command("add", cls=VerbCommand)(add)
app.command("list", cls=VerbCommand)(list_boxes)
app.command("test", cls=VerbCommand)(probe)
app.command("rm", cls=VerbCommand)(remove)
