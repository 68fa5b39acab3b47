"""``upx models``: list, fetch, check, import and remove the weights of models."""

from __future__ import annotations

import typer

from upx.cli._console import Console
from upx.cli._help import VerbCommand, VerbGroup, verb_app
from upx.cli._options import JsonFlag
from upx.cli.models.bring import import_weights, pull
from upx.cli.models.keep import disk_usage, gc, pin, rm
from upx.cli.models.look import InstalledFlag, info, list_models, list_rows, verify

app = verb_app()
EXAMPLES = """
upx models                        what there is, under which licence, and what is here
upx models info tsdsr             every file: where it comes from, where it was found
upx models pull realesrgan-x4plus
upx models import HiT-SRF-4x.pth --as hitsr-srf-x4
upx models verify                 read every byte of what is here
"""


@app.callback(cls=VerbGroup, invoke_without_command=True, epilog=EXAMPLES)
def models(ctx: typer.Context, installed: InstalledFlag = False, json: JsonFlag = False) -> int:
    """List, fetch, check, import and remove the weights of models."""
    return list_rows(Console(as_json=json), installed=installed) if ctx.invoked_subcommand is None else 0


app.command("list", cls=VerbCommand)(list_models)
app.command("info", cls=VerbCommand)(info)
app.command("pull", cls=VerbCommand)(pull)
app.command("verify", cls=VerbCommand)(verify)
app.command("import", cls=VerbCommand)(import_weights)
app.command("rm", cls=VerbCommand)(rm)
app.command("du", cls=VerbCommand)(disk_usage)
app.command("gc", cls=VerbCommand)(gc)
app.command("pin", cls=VerbCommand)(pin)
