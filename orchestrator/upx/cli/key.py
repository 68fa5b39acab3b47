"""``upx key``: show, make, allow and revoke the keys by which machines know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, VerbGroup, verb_app
from upx.cli._options import JsonFlag, QuietFlag
from upx.errors import UsageError

if TYPE_CHECKING:
    from upx.remote.keys import KeyRing

app = verb_app()
EXAMPLES = """
upx key show                          this machine's public keys, and whom it lets in
upx key allow laptop 3f0c…            on a box: let a client's key in
upx key revoke laptop                 at once, also what is connected now
upx key new client --yes              another pair; boxes must allow the new one
"""
_TELL = {
    "client": "every box must be told of it: upx key allow NAME KEY there",
    "server": (
        "a box that runs keeps its old key until systemctl reload upx-box, or SIGHUP; its clients then add it again:"
        " upx worker rm NAME, upx worker add NAME ADDRESS --key KEY"
    ),
}


@app.callback(cls=VerbGroup, invoke_without_command=True, epilog=EXAMPLES)
def key(ctx: typer.Context, json: JsonFlag = False) -> int:
    """Show, make, allow and revoke the keys by which machines know each other.

    A client's key is allowed on a box; a box's key is given to upx worker add on the client. Secret keys stay in
    files that only you can read, and are never shown.
    """
    return _show(Console(as_json=json)) if ctx.invoked_subcommand is None else 0


@app.command(cls=VerbCommand)
def show(json: JsonFlag = False, quiet: QuietFlag = False) -> int:
    """Print this machine's public keys, and the clients that it lets in."""
    return _show(Console(as_json=json, quiet=quiet))


@app.command(cls=VerbCommand)
def new(
    which: Annotated[Literal["client", "server"], typer.Argument(metavar="WHICH", help="client or server.")],
    yes: Annotated[bool, typer.Option("--yes", help="Replace the pair that there is.")] = False,
    json: JsonFlag = False,
) -> int:
    """Make another pair: boxes must allow a new client key, clients must add a box with a new server key again.

    A box that runs keeps its key until systemctl reload, or SIGHUP.
    """
    from upx.cli._results import OwnKey

    keys = _keys()
    if not yes and (keys.folder / f"{which}.json").exists():
        raise UsageError(f"there is a {which} key already", hint=f"upx key new {which} --yes replaces it")
    console = Console(as_json=json, quiet=json)
    console.results(OwnKey(which, keys.new(which)))
    console.note(f"upx: {_TELL[which]}")
    return 0


@app.command(cls=VerbCommand)
def allow(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the client here.")],
    public: Annotated[str, typer.Argument(metavar="KEY", help="Its public key: upx key show, on the client.")],
    json: JsonFlag = False,
) -> int:
    """Let a client use this machine as a box, from now on; no restart is needed."""
    from upx.cli._results import AllowedKey

    entry = _keys().allow(name, public)
    Console(as_json=json).results(AllowedKey(entry.name, entry.key, "allowed"))
    return 0


@app.command(cls=VerbCommand)
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A client's name or key.")],
    json: JsonFlag = False,
) -> int:
    """Let a client in no more; what it is computing here ends within a second."""
    from upx.cli._results import AllowedKey

    gone = _keys().revoke(name)
    Console(as_json=json).results(*(AllowedKey(each.name, each.key, "revoked") for each in gone))
    return 0


def _show(console: Console) -> int:
    from upx.cli._results import AllowedKey, OwnKey

    keys = _keys()
    console.results(OwnKey("client", keys.public("client")), OwnKey("server", keys.public("server")))
    console.results(*(AllowedKey(each.name, each.key, "allowed") for each in keys.allowed()))
    return 0


def _keys() -> KeyRing:
    from upx.remote.keys import KeyRing

    return KeyRing(_host.read_settings())
