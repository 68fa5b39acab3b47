"""``upx setup``: build or mend environments ahead of their use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import JsonFlag, OfflineFlag, QuietFlag, VerboseFlag

if TYPE_CHECKING:
    from upx.cli._results import EnvReady
    from upx.host import Host
    from upx.venvs.venv import Repair

app = verb_app()
EXAMPLES = """
upx setup span               build its environment now
upx setup span --repair      check every file, fetch anew what is damaged
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def setup(
    backends: Annotated[list[str], typer.Argument(metavar="BACKEND...", help="Backends, aliases or models.")],
    *,
    flavour: Annotated[str, typer.Option("--flavour", metavar="NAME", help="auto, cpu or default.")] = "auto",
    repair: Annotated[bool, typer.Option("--repair", help="Check every file and mend what is damaged.")] = False,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Build or mend the environments of backends, and say which weights are still missing.

    What is whole already stays as it is. A backend that fails does not stop the others.
    """
    from upx.cli._progress import Display
    from upx.errors import UpxError

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    failed: list[UpxError] = []
    with Display(console) as display, _host.make_host(display.event) as host:
        for name in dict.fromkeys(backends):
            try:
                console.results(_set_up(host, console, name, flavour=flavour, repair=repair, offline=offline))
                _tell_missing(host, console, name)
            except UpxError as error:
                console.ended(error)
                failed.append(error)
    return failed[0].exit_code if failed else 0


def _set_up(host: Host, console: Console, name: str, *, flavour: str, repair: bool, offline: bool) -> EnvReady:
    from upx.cli._results import EnvReady

    began = time.monotonic()
    mended = 0
    if repair:
        done = host.repair(name, flavour=flavour, offline=offline)
        venv, mended = done.venv, len(done.damage)
        _tell_rest(console, done)
    else:
        venv = host.setup(name, flavour=flavour, offline=offline)
    seconds = round(time.monotonic() - began, 3)
    return EnvReady(name, venv.folder, venv.flavour, venv.fingerprint, seconds, mended, venv.versions)


def _tell_missing(host: Host, console: Console, name: str) -> None:
    """Which weights the model still lacks, and how each is brought: an environment alone enlarges nothing."""
    from upx.assets.find import Missing
    from upx.assets.obtain import Need, ways
    from upx.routes import Request, choose

    route = choose(Request(backend=name), host.catalog.backends())
    finder = host.shelf.finder(route.backend)
    for found in finder.find_all(route.model) if route.backend.kind == "upscaler" else ():
        if isinstance(found, Missing):
            console.note(f"upx: {route.model.name} still lacks {found.asset.file}")
            console.note(f"  → {ways(Need(route.backend, route.model, found.asset))}")


def _tell_rest(console: Console, done: Repair) -> None:
    """What a repair found beyond its own environment: never kept quiet."""
    for sibling in done.siblings:
        console.raw(
            f"upx: {sibling.name} shares the damage: {len(sibling.damage)} files: upx setup {sibling.name} --repair"
        )
    if not done.cache_cleaned:
        console.raw("upx: uv's cache was busy and may still hold the damaged packages: run the repair again")
