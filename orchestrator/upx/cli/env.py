"""``upx env``: list environments, remove what nobody needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, VerbGroup, verb_app
from upx.cli._options import JsonFlag, QuietFlag, VerboseFlag

if TYPE_CHECKING:
    from upx.cli._results import EnvRow
    from upx.venvs.inventory import EnvRecord

app = verb_app()
EXAMPLES = """
upx env list
upx env prune                half-built ones, and those that others have replaced
upx env prune --unused       every one that no worker uses right now
"""


@app.callback(cls=VerbGroup, invoke_without_command=True, epilog=EXAMPLES)
def env(ctx: typer.Context, json: JsonFlag = False) -> int:
    """List environments, remove what nobody needs."""
    return _list(Console(as_json=json)) if ctx.invoked_subcommand is None else 0


@app.command("list", cls=VerbCommand)
def list_envs(json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> int:
    """List the environments on the disk."""
    return _list(Console(as_json=json, quiet=quiet, verbose=verbose))


@app.command(cls=VerbCommand)
def prune(
    unused: Annotated[bool, typer.Option("--unused", help="Whole ones too, unless a worker uses them.")] = False,
    json: JsonFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Remove environments that are half-built or replaced, and old copies of workers' code; say what that freed."""
    from upx.cli._results import Pruned

    with _host.make_host() as host:
        done, stages = host.prune(unused=unused)
    removed, kept = (tuple(each.folder for each in records) for records in (done.removed, done.in_use))
    Console(as_json=json, verbose=verbose).results(Pruned((*removed, *stages), kept, done.freed + sum(stages.values())))
    return 0


def _list(console: Console) -> int:
    with _host.make_host() as host:
        found = host.envs.list_envs(host.catalog.envs())
    console.results(*(_row(each) for each in found))
    if not found:
        console.note("upx: no environments yet; upx setup NAME builds one")
    return 0


def _row(each: EnvRecord) -> EnvRow:
    from upx.cli._results import EnvRow

    flavour, fingerprint = (each.venv.flavour, each.venv.fingerprint) if each.venv else (None, None)
    return EnvRow(each.name, each.folder, each.state, each.in_use, each.superseded, each.size, flavour, fingerprint)
