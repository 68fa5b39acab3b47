"""Look at models: the list, all about one, and whether every byte is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._options import JsonFlag, ManifestOption, NamesArgument, QuietFlag, VerboseFlag
from upx.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.cli.models._results import FileCheck, ModelDetail, ModelFile, ModelRow
    from upx.models.checking import Checked
    from upx.models.shelf import Member, Shelf
    from upx.specs import Asset

InstalledFlag: TypeAlias = Annotated[bool, typer.Option("--installed", help="Only models all of whose files are here.")]


def list_models(
    installed: InstalledFlag = False,
    json: JsonFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """List the models: licence, size, scale, kind, and where their files are."""
    return list_rows(Console(as_json=json, verbose=verbose), installed=installed)


def list_rows(console: Console, *, installed: bool) -> int:
    """Print one row a model."""
    from upx.cli.models._lines import show

    with _host.make_host() as host:
        rows = [_row(host.shelf, member) for member in host.shelf.members()]
    shown = [row for row in rows if row.installed or not installed]
    show(console, *shown)
    if any(row.restricted for row in shown):
        console.note("upx: * asks to be accepted before first use; upx models info NAME shows the terms")
    return 0


def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Model, alias or backend.")],
    json: JsonFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Tell all about a model: every file, its digest and licence, its sources, and which of them won and why."""
    from upx.cli.models._lines import show
    from upx.models.selection import by_names

    with _host.make_host() as host:
        details = [_detail(host.shelf, member) for member in by_names(host.shelf, [name])]
    show(Console(as_json=json, verbose=verbose), *details)
    return 0


def verify(
    names: NamesArgument = None,
    *,
    manifest: ManifestOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Read every byte of what is here, or of all that is named; exit code 5 where a file is missing or damaged.

    With --manifest: everything that it names, environments too.
    """
    from upx.cli.models._lines import show

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    failed = seen = 0
    with _host.make_host() as host:
        for check in _checks(host.shelf, names or [], manifest):
            seen += 1
            failed += check.status in {"missing", "damaged"}
            if not quiet or check.status != "ok":
                show(console, _check_row(check))
    if not seen:
        console.note("upx: no model has files here yet; upx models pull NAME brings some")
    return NotReadyError.exit_code if failed else 0


def _checks(shelf: Shelf, names: list[str], manifest: Path | None) -> Iterator[Checked]:
    from upx.models.checking import installed, verify, verify_envs, verify_orphans
    from upx.models.selection import by_manifest, by_names

    if manifest is not None:
        wanted = by_manifest(shelf, manifest)
        yield from verify_envs(shelf, wanted.envs)
        yield from verify(shelf, wanted.members)
    if names:
        yield from verify(shelf, by_names(shelf, names))
    if not names and manifest is None:
        yield from verify(shelf, installed(shelf))
        yield from verify_orphans(shelf)


def _check_row(check: Checked) -> FileCheck:
    from upx.cli.models._results import FileCheck

    return FileCheck(check.name, check.file, check.status, check.message, check.hint)


def _row(shelf: Shelf, member: Member) -> ModelRow:
    from upx.cli.models._results import ModelRow

    model = member.model
    looked = [_look(shelf, member, asset) for asset in model.assets]
    here = all(each.place for each in looked)
    return ModelRow(
        name=model.name,
        backend=member.backend.name,
        scale=model.scale,
        trained=model.kind,
        licence=model.licence_names,
        restricted=model.restricted,
        size=sum(asset.expected_size for asset in model.assets),
        installed=here,
        damaged=any(each.damaged for each in looked),
        places=tuple(dict.fromkeys(each.place for each in looked if each.place)),
        runs=member.backend.kind == "upscaler",
        title=model.title,
    )


def _detail(shelf: Shelf, member: Member) -> ModelDetail:
    from upx.assets.licences import accepted_at
    from upx.cli.models._results import LicenceInfo, ModelDetail
    from upx.models.upkeep import pinned

    model = member.model
    licences = tuple(
        LicenceInfo(each.name, each.link, each.noncommercial, each.gated, each.restricted, each.note)
        for each in model.licences
    )
    return ModelDetail(
        name=model.name,
        backend=member.backend.name,
        aliases=(*model.aliases, *member.backend.aliases),
        title=model.title,
        scale=model.scale,
        trained=model.kind,
        bundles=(*model.bundles, member.backend.name),
        runs=member.backend.kind == "upscaler",
        licences=licences,
        accepted=accepted_at(model, shelf.settings),
        pinned=model.name in pinned(shelf),
        files=tuple(_look(shelf, member, asset) for asset in model.assets),
    )


def _look(shelf: Shelf, member: Member, asset: Asset) -> ModelFile:
    from upx.assets.find import Found
    from upx.assets.obtain import Need, ways
    from upx.cli.models._results import ModelFile
    from upx.errors import WeightsError

    path, place, sha256, hint, damaged = None, "", asset.sha256, "", False
    try:
        found = shelf.finder(member.backend).find(member.model, asset)
    except WeightsError as error:
        why, hint, damaged = str(error), error.hint, True
    else:
        if isinstance(found, Found):
            path, place, why, sha256 = found.path, found.place, found.why, found.sha256
        else:
            why, hint = "; ".join(found.tried), ways(Need(member.backend, member.model, asset))
    return ModelFile(
        role=asset.role,
        file=asset.file,
        size=asset.expected_size,
        size_is_exact=bool(asset.size),
        sha256=sha256,
        unverified=asset.unverified,
        licence=(asset.licence or member.model.licence).name,
        sources=tuple(map(source_text, asset.sources)),
        place=place,
        damaged=damaged,
        path=path,
        why=why,
        hint=hint,
    )


def source_text(source: object) -> str:
    """A source in one line: its kind and where it is."""
    import dataclasses

    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}  # pyright: ignore[reportArgumentType]
    kind = getattr(source, "kind", "")
    if kind == "hf":
        return f"hf: {fields['repository']}@{fields['revision']}/{fields['path']}"
    return f"{kind}: {' '.join(str(value) for value in fields.values() if value)}"
