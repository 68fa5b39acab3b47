"""Bring weights: fetch them, or import what a person brought."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._options import (
    JsonFlag,
    LicenceFlag,
    ManifestOption,
    NamesArgument,
    OfflineFlag,
    QuietFlag,
    VerboseFlag,
)
from upx.errors import UsageError

if TYPE_CHECKING:
    from upx.cli.models._results import ImportRow, PullRow
    from upx.host import Host
    from upx.models.importing import Imported
    from upx.models.pulling import Pulled
    from upx.models.selection import Selection


def pull(
    names: NamesArgument = None,
    *,
    bundle: Annotated[
        list[str] | None, typer.Option("--bundle", metavar="NAME", help="A set of models; may be repeated.")
    ] = None,
    manifest: ManifestOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every model that upx knows.")] = False,
    accept_licence: LicenceFlag = False,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Fetch the weights of models, and the environments that carry some; mend what is damaged.

    Afterwards they need no network. What was interrupted goes on where it stopped. One that fails stops no other.
    """
    from upx.cli._licences import ask_for
    from upx.cli._progress import Display
    from upx.cli.models._lines import show
    from upx.cli.models._results import Removed
    from upx.models.pulling import build_envs, keep_below_cap, pull

    if not (names or bundle or manifest or every):
        raise UsageError("nothing was named", hint="name models, or --bundle default, --manifest FILE, --all")
    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    with Display(console) as display, _host.make_host(display.event) as host:
        offline = offline or host.settings.offline
        wanted = _select(host, names or [], bundle or [], manifest, every=every)
        ask_for([member.model for member in wanted.members], host.settings, console, accepted=accept_licence)
        failed = [error for _, error in build_envs(host.shelf, wanted.envs, offline=offline) if error is not None]
        done = pull(host.shelf, wanted, offline=offline, accept_licence=accept_licence)
        evicted = keep_below_cap(host.shelf, done)
    for error in failed:
        console.ended(error)
    for each in done:
        if each.error is not None:
            console.failure(each.error, about=each.member.model.name)
            failed.append(each.error)
        if each.error is None or json:
            show(console, _pull_row(each))
    if evicted is not None:
        show(console, Removed(evicted.evicted, evicted.kept, evicted.freed))
    return failed[0].exit_code if failed else 0


def import_weights(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file of weights, or a folder that holds some.")],
    *,
    name: Annotated[
        str, typer.Option("--as", metavar="MODEL[:ROLE]", help="Whose file it is, where it does not tell.")
    ] = "",
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Import weights that you brought: safetensors, PyTorch, ONNX, or a folder in diffusers' layout.

    Names and shapes tell which model it is. A pickle is opened in an environment of its own, where it can run
    nothing, and a safetensors copy is kept.
    """
    from upx.cli._progress import Display
    from upx.cli.models._lines import show
    from upx.models.importing import import_path

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    with Display(console) as display, _host.make_host(display.event) as host:
        host.offline = offline or host.settings.offline
        done = import_path(host.shelf, path, name=name)
    show(console, *map(_import_row, done))
    return 0


def _select(host: Host, names: list[str], bundle: list[str], manifest: Path | None, *, every: bool) -> Selection:
    from upx.models.selection import BUNDLE_ALL, Selection, by_bundles, by_manifest, by_names

    wanted = Selection(()) if manifest is None else by_manifest(host.shelf, manifest)
    others = by_names(host.shelf, names) + by_bundles(host.shelf, [*bundle, *([BUNDLE_ALL] if every else [])])
    known = {member.model.name for member in wanted.members}
    more = {member.model.name: member for member in others if member.model.name not in known}
    return Selection((*wanted.members, *more.values()), wanted.envs, wanted.pins)


def _pull_row(each: Pulled) -> PullRow:
    from upx.cli.models._results import PullRow

    error = each.error
    told = ("", "", "") if error is None else (error.code, str(error), error.hint)
    return PullRow(each.member.model.name, each.status, each.files, each.size, round(each.seconds, 3), *told)


def _import_row(each: Imported) -> ImportRow:
    from upx.cli.models._results import ImportRow

    return ImportRow(each.source, each.model, each.role, each.path, each.sha256, each.size, each.notes)
