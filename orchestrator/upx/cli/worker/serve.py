"""``upx worker serve`` and ``drain``: this machine as a box."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._options import JsonFlag, LicenceFlag, OfflineFlag, QuietFlag, VerboseFlag
from upx.errors import UsageError

if TYPE_CHECKING:
    from upx.config import Settings
    from upx.host import Host
    from upx.serving.box import BoxServer

LISTEN = "tcp://127.0.0.1:7600"


def serve(
    backend: Annotated[str, typer.Argument(metavar="BACKEND", help="Backend, alias or model, as upx backends lists.")],
    *,
    listen: Annotated[
        str,
        typer.Option(
            "--listen", metavar="ADDRESS", help=f"tcp://ADDRESS:PORT, {LISTEN} by default; 0.0.0.0 is every address."
        ),
    ] = LISTEN,
    device: Annotated[
        str, typer.Option("--device", "-d", metavar="DEVICE", help="auto, cpu, cuda:0,cuda:1, mps, or all: every GPU.")
    ] = "auto",
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What its log and its metrics call it; this machine's name by default."
        ),
    ] = None,
    accept_licence: LicenceFlag = False,
    offline: OfflineFlag = False,
    take_files: Annotated[
        bool, typer.Option("--take-files", help="Let clients send weights that this machine lacks, verified.")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="[ADDRESS:]PORT", help="Serve figures to Prometheus; loopback unless told."),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log one JSON object a line.")] = False,
    verbose: VerboseFlag = False,
) -> int:
    """Serve a backend to hosts of other machines, until SIGTERM or Ctrl-C; one worker a device, one port each.

    Only keys that upx key allow has let in may connect. SIGHUP restarts the workers one by one.
    """
    _refuse_windows()
    _log(as_json=log_json, verbose=verbose)
    with _host.make_host() as host:
        said = _Said(
            backend=backend, listen=listen, device=device, name=name, accept=accept_licence, offline=offline,
            take_files=take_files, as_json=log_json,
        )  # fmt: skip
        server = _server(host, said)
        with ExitStack() as stack:
            if metrics is not None:
                _serve_metrics(metrics, server, host.settings, stack)
            server.start()
            return server.run()


def drain(json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> int:
    """Let the box that runs on this machine finish what it has, take nothing new, and end."""
    from upx.cli._ended import tell
    from upx.serving.draining import drain_all

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    ended = drain_all(_host.read_settings())
    tell(ended, console, nobody="nothing is served here", hint="wait, and run it again; SIGTERM ends the box at once")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What the options say."""

    backend: str
    listen: str
    device: str
    name: str | None
    accept: bool
    offline: bool
    take_files: bool
    as_json: bool


def _server(host: Host, said: _Said) -> BoxServer:
    import socket

    from upx.remote.names import NAME
    from upx.routes import Request, choose
    from upx.serving import plans
    from upx.serving.addresses import parse_listen
    from upx.serving.box import BoxServer
    from upx.serving.keeper import Keeper

    address = parse_listen(said.listen)
    called = said.name or socket.gethostname().partition(".")[0]
    if NAME.fullmatch(called) is None:
        raise UsageError(f"{called!r} is no name", hint="--name with letters, digits, dots and dashes")
    spec = choose(Request(backend=said.backend), host.catalog.backends()).backend
    plans.refuse_unservable(spec)
    devices = plans.chosen_devices(spec, said.device, host.shelf)
    offline = said.offline or host.settings.offline
    venv = plans.ready_env(spec, devices, host.shelf, offline=offline)
    keeper = Keeper(
        spec, host.shelf, site_packages=venv.site_packages, offline=offline, accept_licence=said.accept,
        take_files=said.take_files,
    )  # fmt: skip
    return BoxServer(
        called,
        spec,
        lambda: plans.box_plans(called, spec, devices, venv, host.shelf),
        host.settings,
        address=address,
        keeper=keeper,
        log_json=said.as_json,
    )


def _serve_metrics(text: str, server: BoxServer, settings: Settings, stack: ExitStack) -> None:
    """Serve figures until the stack is closed."""
    from upx.serving.metrics import MetricsServer, Statistics, parse_metrics

    address = parse_metrics(text)
    figures = Statistics(server.name, lambda: server.workers, settings)
    stack.callback(figures.close)
    made = MetricsServer(address, figures.page)
    stack.callback(made.close)
    logging.getLogger("upx.serve").info("metrics at port %d", made.port)


def _log(*, as_json: bool, verbose: bool) -> None:
    """A service's words go to standard error, with their time: nobody sits before it."""
    from upx_protocol.logs import JsonLines, Throttle

    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # Clients can cause some of them as often as they like.
    lines.addFilter(Throttle())
    logger = logging.getLogger("upx")
    logger.handlers[:] = [lines]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


def _refuse_windows() -> None:
    from upx.config import IS_WINDOWS

    if IS_WINDOWS:
        raise UsageError("a box needs Linux or macOS", hint="Windows can be a client of one: upx worker add")
