"""``upx stop``: end workers."""

from __future__ import annotations

from typing import Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import JsonFlag, QuietFlag, VerboseFlag
from upx.errors import UsageError

app = verb_app()
EXAMPLES = """
upx stop span-1a2b3c4d-0        one, by the name that upx ps shows
upx stop span                   all of one backend
upx stop --all --force          every one, at once
"""
EVERY = "all"


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def stop(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID...]", help="Names, process ids, backends, models or devices, as upx ps shows them."
        ),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every worker of yours on this machine.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do not wait for the work in hand.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """End workers; each finishes the work it has, unless --force says otherwise."""
    from upx.cli._ended import tell
    from upx.workers.control import stop as end

    if bool(ids) == every:
        raise UsageError("name the workers to end, or say --all", hint="upx ps lists them")
    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    settings = _host.read_settings()
    ended = [each for word in ids or [EVERY] for each in end(settings, word, force=force)]
    tell(ended, console, nobody="no workers are running", hint="wait, or upx stop --force")
    return 0
