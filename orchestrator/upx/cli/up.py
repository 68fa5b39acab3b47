"""``upx up``: enlarge pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import (
    OUTPUT,
    QUALITY,
    REPORTING,
    BackendOption,
    DeviceOption,
    JsonFlag,
    KeepAliveOption,
    LicenceFlag,
    ModelOption,
    OfflineFlag,
    OnOption,
    PrecisionOption,
    QuietFlag,
    ScaleOption,
    SetOption,
    TileOption,
    VerboseFlag,
    WeightsOption,
    WorkersOption,
    parse_device,
    parse_keep_alive,
    parse_on,
    parse_settings,
    parse_tile,
    parse_workers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.jobs import Input, JobOptions
    from upx.routes import Request

app = verb_app()
EXAMPLES = """
upx up photo.jpg                         photo_4x_span-x4.jpg, beside it
upx up photo.jpg -o big.png -s 2         another name, format and scale
upx up holiday/ -o big/                  every picture below holiday/, the tree kept
upx up *.png -o '{stem}_{width}px{ext}'  a template
cat a.png | upx up - -o - > b.png        standard input to standard output
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def up(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Pictures, folders, or - for standard input.")
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="File, folder (DIR/), template or -.", rich_help_panel=OUTPUT
        ),
    ] = None,
    format: Annotated[  # noqa: A002  # the option's name
        str | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="png, jpeg or webp.", rich_help_panel=OUTPUT),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option("--quality", metavar="N", help="Of JPEG and WebP, 1 to 100.", rich_help_panel=OUTPUT),
    ] = None,
    on_exists: Annotated[
        Literal["overwrite", "skip", "rename", "error"],
        typer.Option(
            "--on-exists",
            metavar="HOW",
            help="An output that is there: overwrite, skip, rename, error.",
            rich_help_panel=OUTPUT,
        ),
    ] = "overwrite",
    backend: BackendOption = None,
    model: ModelOption = None,
    scale: ScaleOption = None,
    settings: SetOption = None,
    weights: WeightsOption = None,
    accept_licence: LicenceFlag = False,
    tile: TileOption = "auto",
    overlap: Annotated[
        int | None,
        typer.Option("--overlap", metavar="N", help="Of tiles, in input pixels.", rich_help_panel=QUALITY),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="For models that draw at random.", rich_help_panel=QUALITY),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = "auto",
    keep_alive: KeepAliveOption = "5m",
    on: OnOption = None,
    offline: OfflineFlag = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE", help="Write what took which time, for Perfetto.", rich_help_panel=REPORTING
        ),
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Enlarge pictures, folders or standard input.

    The backend's environment and weights are set up when they are first needed.

    Templates know the fields stem, ext, dir, rel, index, scale, width, height, backend, model, seed, date and hash.
    """
    from upx.jobs import JobOptions, expand_inputs
    from upx.routes import Request

    request = Request(
        backend=backend,
        model=model,
        scale=scale,
        weights=weights,
        device=parse_device(device),
        precision=precision,
        workers=parse_workers(workers),
        keep_alive=parse_keep_alive(keep_alive),
        params=parse_settings(settings),
        accept_licence=accept_licence,
        on=parse_on(on),
    )
    options = JobOptions(
        tile=parse_tile(tile), overlap=overlap, seed=seed, format=format, quality=quality, on_exists=on_exists
    )
    if output == "-":
        from upx.cli._targets import check_stdout

        check_stdout(as_json=json, terminal=sys.stdout.isatty())
    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    return _enlarge(expand_inputs(inputs), output, request, options, console, offline=offline, trace=trace)


def _enlarge(
    items: Sequence[Input],
    output: str | None,
    request: Request,
    options: JobOptions,
    console: Console,
    *,
    offline: bool,
    trace: Path | None,
) -> int:
    from upx.cli._batch import Batch
    from upx.cli._licences import ask_for
    from upx.cli._progress import Display
    from upx.cli._targets import plan_targets
    from upx.cli._trace import hearing, recording
    from upx.naming import Facts, Plan
    from upx.trace import measured

    with (
        recording(trace, console) as tracer,
        Display(console, pictures=len(items)) as display,
        _host.make_host(hearing(display.event, tracer)) as host,
        host.open(request, offline=offline) as session,
    ):
        if all(item.error is not None for item in items):
            plans = [Plan(item, None, "png") for item in items]
            return Batch(None, options, console, display).run(plans)
        stdin = sys.stdin.buffer.read() if any(item.source is None for item in items) else b""
        route = session.route
        console.detail(f"upx: {route.model.name} of {route.backend.name}: {route.reason}")
        facts = Facts(route.model.scale**route.passes, route.backend.name, route.model.name, options.seed, _today())
        plans = plan_targets(items, output, facts, options, stdin=stdin, trace=trace)
        if any(plan.input.error is None and not plan.skip for plan in plans):
            ask_for([route.model], host.settings, console, accepted=request.accept_licence)
            with measured(tracer, "prepare"):
                session.prepare()
        return Batch(session, options, console, display, stdin=stdin, tracer=tracer).run(plans)


def _today() -> str:
    from datetime import datetime

    return datetime.now().astimezone().date().isoformat()
