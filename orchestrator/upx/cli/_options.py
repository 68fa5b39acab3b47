"""The options that verbs share, and what their words mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from upx.errors import ParameterError, UsageError

MODEL, QUALITY, OUTPUT, RUNNING, REPORTING = "Model", "Picture", "Output", "Running", "Reporting"

JsonFlag: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON record a line.", rich_help_panel=REPORTING)
]
QuietFlag: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=REPORTING)
]
VerboseFlag: TypeAlias = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Builder's output, worker logs, tracebacks.", rich_help_panel=REPORTING),
]
OfflineFlag: TypeAlias = Annotated[
    bool, typer.Option("--offline", help="Never reach out to the network.", rich_help_panel=RUNNING)
]
BackendOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--backend", "-b", metavar="NAME", help="Backend, alias or model.", rich_help_panel=MODEL),
]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", "-n", metavar="NAME", help="Model, as upx backends lists them.", rich_help_panel=MODEL),
]
ScaleOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--scale", "-s", metavar="N", min=1, help="Enlarge by N; picks the model.", rich_help_panel=MODEL),
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A parameter of the backend; may be repeated.", rich_help_panel=MODEL
    ),
]
LicenceFlag: TypeAlias = Annotated[
    bool,
    typer.Option("--accept-licence", help="Use weights whose licence you have read.", rich_help_panel=MODEL),
]
WeightsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="PATH", help="Your own file or folder instead of the released one.", rich_help_panel=MODEL
    ),
]
NamesArgument: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[MODEL...]", help="Models, backends or aliases.")
]
ManifestOption: TypeAlias = Annotated[
    Path | None, typer.Option("--manifest", metavar="FILE", help="A TOML file that names models and environments.")
]
DeviceOption: TypeAlias = Annotated[
    str,
    typer.Option("--device", "-d", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUNNING),
]
OnOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="WHERE", help="Boxes, with commas; local is this machine, any is all.", rich_help_panel=RUNNING
    ),
]
PrecisionOption: TypeAlias = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"],
    typer.Option("--precision", metavar="P", help="auto, fp32, fp16 or bf16.", rich_help_panel=RUNNING),
]
WorkersOption: TypeAlias = Annotated[
    str,
    typer.Option("--workers", "-j", metavar="N", help="Worker processes: auto or a number.", rich_help_panel=RUNNING),
]
KeepAliveOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--keep-alive",
        metavar="TIME",
        help="How long an idle worker stays: 0, 30s, 5m, 2h, forever.",
        rich_help_panel=RUNNING,
    ),
]
TileOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--tile", "-t", metavar="N", help="Tile side in input pixels: auto, a number, off.", rich_help_panel=QUALITY
    ),
]

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]+)?")


def parse_keep_alive(text: str) -> float | None:
    """Seconds; 0 ties the worker to the command, None is for ever. UsageError for anything else."""
    word = text.strip().lower()
    if word == "forever":
        return None
    match = _TIME.fullmatch(word)
    if match is None:
        raise UsageError(f"--keep-alive {text} is no time", hint="0, 30s, 5m, 2h or forever")
    return float(match[1]) * _SECONDS[match[2]]


def parse_tile(text: str) -> int | None:
    """0 for auto, None for off, else input pixels. UsageError for anything else."""
    word = text.strip().lower()
    if word == "off":
        return None
    if word == "auto":
        return 0
    if not word.isascii() or not word.isdigit() or int(word) == 0:
        raise UsageError(f"--tile {text} is no tile", hint="auto, off, or a side in input pixels such as 256")
    return int(word)


def parse_workers(text: str) -> int:
    """0 for auto, else a number. UsageError for anything else."""
    word = text.strip().lower()
    if word == "auto":
        return 0
    if not word.isascii() or not word.isdigit():
        raise UsageError(f"--workers {text} is no number", hint="auto, or how many processes: -j 2")
    return int(word)


def parse_device(text: str) -> str:
    """The device as it is written; UsageError when it is none."""
    word = text.strip().lower()
    if _DEVICE.fullmatch(word) is None:
        raise UsageError(f"no device is called {text!r}", hint="-d auto, cpu, cuda, cuda:N or mps")
    return word


def parse_on(text: str | None) -> tuple[str, ...]:
    """The places that --on names; UsageError where it names none."""
    names = tuple(word for word in (part.strip() for part in (text or "").split(",")) if word)
    if text is not None and not names:
        raise UsageError("--on names no place", hint="a box that upx worker lists, local, or any")
    return names


def parse_settings(pairs: list[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` pairs, still text: the backend's manifest gives the types. The last of one key counts."""
    parsed: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ParameterError(f"--set {pair} is no KEY=VALUE", hint="upx backends info NAME lists the keys")
        parsed[key.strip().replace("-", "_")] = value
    return parsed
