"""``upx backends``: list the backends, or tell all about one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, VerbGroup, verb_app
from upx.cli._options import JsonFlag, VerboseFlag

if TYPE_CHECKING:
    from upx.cli._results import BackendInfo, BackendRow
    from upx.host import Host
    from upx.specs import BackendSpec, ModelSpec

app = verb_app()
EXAMPLES = """
upx backends                 all of them
upx backends info span       models, licences and parameters of one
"""


@app.callback(cls=VerbGroup, invoke_without_command=True, epilog=EXAMPLES)
def backends(ctx: typer.Context, json: JsonFlag = False) -> int:
    """List the backends, or tell all about one."""
    return _list(Console(as_json=json)) if ctx.invoked_subcommand is None else 0


@app.command("list", cls=VerbCommand)
def list_backends(json: JsonFlag = False, verbose: VerboseFlag = False) -> int:
    """List the backends."""
    return _list(Console(as_json=json, verbose=verbose))


@app.command(cls=VerbCommand)
def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Backend, alias or model.")],
    json: JsonFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Tell all about one backend."""
    from upx.routes import Request

    with _host.make_host() as host:
        # A session knows aliases, models and near misses; it costs nothing until it is used.
        spec = host.open(Request(backend=name)).route.backend
        Console(as_json=json, verbose=verbose).results(_info(host, spec))
    return 0


def _list(console: Console) -> int:
    from upx.cli._results import BackendProblem

    with _host.make_host() as host:
        rows = [_row(host, spec) for spec in host.catalog.backends()]
        problems = [BackendProblem(str(error), error.hint) for error in host.catalog.problems()]
    console.results(*rows)
    console.results(*problems)
    return 0


def _row(host: Host, spec: BackendSpec) -> BackendRow:
    from upx.cli._results import BackendRow

    return BackendRow(
        name=spec.name,
        title=spec.title,
        default_model=spec.default_model,
        scales=tuple(sorted({model.scale for model in spec.models})),
        models=tuple(model.name for model in spec.models),
        devices=spec.devices,
        env=_env(host, spec),
        purpose=spec.kind,
    )


def _info(host: Host, spec: BackendSpec) -> BackendInfo:
    from upx.cli._results import BackendInfo, ModelInfo, ParameterInfo

    def link(model: ModelSpec) -> str:
        return next((licence.link for licence in model.licences if licence.restricted), model.licence.link)

    models = tuple(
        ModelInfo(each.name, each.scale, each.title, each.kind, each.licence_names, link(each), each.restricted)
        for each in spec.models
    )
    parameters = tuple(
        ParameterInfo(each.name, each.kind, each.default, each.minimum, each.maximum, each.choices, each.help)
        for each in spec.parameters
    )
    return BackendInfo(
        name=spec.name,
        title=spec.title,
        description=spec.description,
        homepage=spec.homepage,
        folder=spec.folder,
        aliases=spec.aliases,
        default_model=spec.default_model,
        models=models,
        parameters=parameters,
        devices=spec.devices,
        precisions=spec.precisions,
        tile=spec.tiling.tile,
        overlap=spec.tiling.overlap,
        stitch=spec.tiling.stitch,
        env=_env(host, spec),
        purpose=spec.kind,
    )


def _env(host: Host, spec: BackendSpec) -> Path | None:
    found = None if spec.kind == "weights" else host.envs.find(spec.env)
    return None if found is None else found.folder
