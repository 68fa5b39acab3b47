"""``upx warm``: load a model now, for the commands to come."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import (
    BackendOption,
    DeviceOption,
    JsonFlag,
    KeepAliveOption,
    LicenceFlag,
    ModelOption,
    OfflineFlag,
    PrecisionOption,
    QuietFlag,
    ScaleOption,
    SetOption,
    VerboseFlag,
    WeightsOption,
    WorkersOption,
    parse_device,
    parse_keep_alive,
    parse_settings,
    parse_workers,
)
from upx.errors import UsageError

app = verb_app()
EXAMPLES = """
upx warm                        the default model, for five idle minutes
upx warm span-x2 --keep-alive forever
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def warm(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Backend, alias or model.")] = None,
    *,
    backend: BackendOption = None,
    model: ModelOption = None,
    scale: ScaleOption = None,
    settings: SetOption = None,
    weights: WeightsOption = None,
    accept_licence: LicenceFlag = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = "auto",
    keep_alive: KeepAliveOption = "5m",
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Load a model now and keep it: the next command that wants it, with the same options, starts at once."""
    from upx.cli._licences import ask_for
    from upx.cli._progress import Display
    from upx.cli._results import Warm
    from upx.routes import Request

    seconds = parse_keep_alive(keep_alive)
    if seconds == 0:
        raise UsageError("--keep-alive 0 would end the worker with this command", hint="5m, 2h or forever")
    if name and backend:
        raise UsageError(f"two backends are named: {name} and {backend}", hint="leave one of them out")
    request = Request(
        backend=backend or name,
        model=model,
        scale=scale,
        weights=weights,
        device=parse_device(device),
        precision=precision,
        workers=parse_workers(workers),
        keep_alive=seconds,
        params=parse_settings(settings),
        accept_licence=accept_licence,
    )
    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    began = time.monotonic()
    with (
        Display(console) as display,
        _host.make_host(display.event) as host,
        host.open(request, offline=offline) as session,
    ):
        ask_for([session.route.model], host.settings, console, accepted=accept_licence)
        able, route = session.warm(), session.route
    took = round(time.monotonic() - began, 3)
    console.results(Warm(route.backend.name, route.model.name, able.device, able.precision, seconds, took))
    return 0
