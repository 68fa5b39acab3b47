"""``upx bench``: measure how fast this machine is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import (
    BackendOption,
    DeviceOption,
    JsonFlag,
    LicenceFlag,
    ModelOption,
    OfflineFlag,
    QuietFlag,
    TileOption,
    VerboseFlag,
    parse_device,
    parse_tile,
    parse_workers,
)
from upx.cli._pace import MEGA

if TYPE_CHECKING:
    from upx.cli._results import BenchRow
    from upx.jobs import JobOptions
    from upx.result import Record
    from upx.session import Session

app = verb_app()
EXAMPLES = """
upx bench                       a drawn picture, one worker and as many as fit
upx bench photo.jpg -j 1,2,4    your own picture, and other numbers of workers
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def bench(
    picture: Annotated[Path | None, typer.Argument(metavar="[PICTURE]", help="A picture of yours.")] = None,
    *,
    backend: BackendOption = None,
    model: ModelOption = None,
    accept_licence: LicenceFlag = False,
    tile: TileOption = "auto",
    size: Annotated[
        int, typer.Option("--size", metavar="N", min=1, help="Side of the drawn picture, in pixels.")
    ] = 512,
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="Runs; the fastest counts.")] = 2,
    workers: Annotated[str, typer.Option("--workers", "-j", metavar="N,N", help="Numbers of workers.")] = "1,auto",
    device: DeviceOption = "auto",
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Measure this machine: megapixels a second, and which stage takes which share.

    Each setting is measured warm; the time to load the model is not counted.
    """
    from upx.cli._licences import ask_for
    from upx.cli._progress import Display
    from upx.jobs import JobOptions
    from upx.routes import Request

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    options = JobOptions(tile=parse_tile(tile), format="png")
    rows: list[BenchRow] = []
    with tempfile.TemporaryDirectory(prefix="upx-bench-") as folder:
        source = picture or draw(Path(folder) / "drawn.png", size)
        with Display(console) as display, _host.make_host(display.event) as host:
            for number in dict.fromkeys(parse_workers(word) for word in workers.split(",")):
                request = Request(
                    backend, model, device=parse_device(device), workers=number, accept_licence=accept_licence
                )
                with host.open(request, offline=offline) as session:
                    ask_for([session.route.model], host.settings, console, accepted=accept_licence)
                    # auto may be a number that was measured already
                    count = session.prepare().workers
                    if count not in {row.workers for row in rows}:
                        rows.append(_measure(session, source, options, repeat=repeat, workers=count))
    console.results(*rows)
    return 0


def draw(path: Path, side: int) -> Path:
    """A picture with soft and hard parts, always the same; returns its path."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[0:side, 0:side] / max(side, 1)
    soft = np.stack([rows, columns, 0.5 + 0.5 * np.sin(40 * rows * columns)], axis=-1)  # (H, W, 3), 0..1
    hard = ((rows * 16).astype(int) + (columns * 16).astype(int)) % 2
    Image.fromarray((soft * (0.5 + 0.5 * hard[..., None]) * 255).astype(np.uint8)).save(path)
    return path


def _measure(session: Session, source: Path, options: JobOptions, *, repeat: int, workers: int) -> BenchRow:
    with tempfile.TemporaryDirectory(prefix="upx-bench-") as folder:
        session.warm()
        # The first run pays for what is loaded once; it is not counted.
        records = [session.run(source, Path(folder) / "out.png", options).record for _ in range(repeat + 1)][1:]
    return _row(min(records, key=lambda record: record.seconds), workers)


def _row(record: Record, workers: int) -> BenchRow:
    from upx.cli._results import BenchRow

    width, height = record.in_size or (0, 0)
    seconds = max(record.seconds, 1e-6)
    total = sum(record.stages.values()) or 1.0
    return BenchRow(
        backend=record.backend or "",
        model=record.model or "",
        workers=workers,
        tile=max(record.tile or (0, 0)),
        width=width,
        height=height,
        seconds=round(seconds, 4),
        tiles_per_second=round(record.tiles / seconds, 3),
        megapixels_per_second=round(width * height / MEGA / seconds, 4),
        stages={stage: round(share / total, 4) for stage, share in record.stages.items()},
    )
