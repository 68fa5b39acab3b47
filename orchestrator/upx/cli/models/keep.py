"""Keep the store in order: what it takes, what stays, what goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._options import JsonFlag, QuietFlag, VerboseFlag
from upx.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from upx.models.shelf import Shelf
    from upx.models.upkeep import Collected

ModelNames = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models, backends or aliases.")]


def rm(names: ModelNames, json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> int:
    """Remove the files of models from the store; those that a worker uses stay.

    What lies in an environment's package or in the hub's own cache is not touched.
    """
    from upx.models.upkeep import remove

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    with _host.make_host() as host:
        wanted = _models(host.shelf, names)
        here = [name for name in wanted if name in host.shelf.store.models()]
        done = remove(host.shelf, here)
    if not here:
        console.note(f"upx: nothing of {', '.join(wanted)} is in the store")
    _tell(console, done)
    return WeightsError.exit_code if done.kept else 0


def disk_usage(json: JsonFlag = False, verbose: VerboseFlag = False) -> int:
    """Say what the store takes, model by model, the least recently used first."""
    from upx.cli.models._lines import show
    from upx.cli.models._results import StoreTotal, UsageRow
    from upx.models.upkeep import usage

    console = Console(as_json=json, verbose=verbose)
    with _host.make_host() as host:
        rows, shelf = usage(host.shelf), host.shelf
        parts = shelf.store.parts_size()
        total = StoreTotal(shelf.store.root, sum(shelf.store.blobs().values()), parts, host.settings.store_cap)
    show(console, *(UsageRow(row.model, row.size, row.own, row.last_used, row.pinned, row.in_use) for row in rows))
    show(console, total)
    return 0


def gc(
    cap: Annotated[
        str | None, typer.Option("--cap", metavar="SIZE", help="Evict models above this, as in 20GB.")
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Remove what no model names, and above the cap (UPX_STORE_CAP) the least recently used models.

    A model that is pinned or in use is never evicted.
    """
    from upx.config import parse_size
    from upx.models.upkeep import collect

    try:
        limit = None if cap is None else parse_size(cap)
    except ValueError as error:
        raise UsageError(f"--cap {cap} is no size", hint="as in 20GB or 500 MiB") from error
    with _host.make_host() as host:
        done = collect(host.shelf, host.settings.store_cap if limit is None else limit)
    _tell(Console(as_json=json, quiet=quiet, verbose=verbose), done)
    return 0


def pin(
    names: ModelNames,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Let them be evicted again.")] = False,
    json: JsonFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Never evict these models, whatever the cap; or let them go again."""
    from upx.cli.models._lines import show
    from upx.cli.models._results import Pinned
    from upx.models.upkeep import set_pin

    with _host.make_host() as host:
        wanted = _models(host.shelf, names)
        for name in wanted:
            set_pin(host.shelf, name, pinned=not remove)
    show(Console(as_json=json, verbose=verbose), *(Pinned(name, pinned=not remove) for name in wanted))
    return 0


def _models(shelf: Shelf, names: list[str]) -> list[str]:
    """The models that are meant; one in the store may be of a backend that is gone."""
    from upx.models.selection import by_names
    from upx.models.upkeep import pinned

    known = {*shelf.store.models(), *pinned(shelf)}
    found: list[str] = []
    for name in names:
        found += [name] if name in known else [member.model.name for member in by_names(shelf, [name])]
    return list(dict.fromkeys(found))


def _tell(console: Console, done: Collected) -> None:
    from upx.cli.models._lines import show
    from upx.cli.models._results import Removed

    show(console, Removed(done.evicted, done.kept, done.freed))
