"""What a box says of itself to Prometheus: a text page over HTTP, for whoever may connect; loopback unless told.

The figures come from the registry entries that the workers keep themselves, so that a page costs them nothing.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from upx.errors import UsageError, WorkerStartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from upx.serving.worker import ServedWorker

CONTENT = "text/plain; version=0.0.4; charset=utf-8"
LOOPBACK = "127.0.0.1"
REQUEST_S = 5.0
MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of every worker."""

    name: str
    kind: str
    help: str
    value: Callable[[ServedWorker], float]


METRICS = (
    Metric("upx_worker_up", "gauge", "Whether the worker has a process that has bound.", lambda w: w.info is not None),
    Metric("upx_worker_restarts_total", "counter", "Starts after the first.", lambda w: w.restarts),
    Metric("upx_worker_hosts", "gauge", "Hosts with a session.", lambda w: w.info.hosts if w.info else 0),
    Metric("upx_worker_memory_bytes", "gauge", "Resident set.", lambda w: w.info.memory if w.info else 0),
    Metric("upx_worker_idle_seconds", "gauge", "Since the last host has left.", lambda w: w.info.idle if w.info else 0),
    Metric(
        "upx_worker_uptime_seconds", "gauge", "Since the process was born.",
        lambda w: time.time() - w.info.started if w.info else 0,
    ),
)  # fmt: skip


def page(box: str, workers: Sequence[ServedWorker]) -> str:
    """The text that is served: every metric of every worker, by port, backend, device and model."""
    return "".join(f"{line}\n" for metric in METRICS for line in _lines(metric, box, workers))


def _lines(metric: Metric, box: str, workers: Sequence[ServedWorker]) -> Iterable[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for each in workers:
        info = each.info
        facts = {
            "box": box,
            "port": str(each.port),
            "backend": each.plan.backend,
            "device": each.plan.device,
            "model": info.model if info is not None else "",
        }
        labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in facts.items())
        yield f"{metric.name}{{{labels}}} {float(metric.value(each)):g}"


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def parse_metrics(text: str) -> tuple[str, int]:
    """(address, port) of ``PORT`` or ``ADDRESS:PORT``; UsageError for anything else."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > MOST_PORT:
        raise UsageError(f"{text!r} is no place for metrics", hint="--metrics 9600, or --metrics 0.0.0.0:9600")
    return host.strip("[]") or LOOPBACK, int(port)


class MetricsServer:
    """Serves ``text()`` at ``/metrics`` on threads of its own, until it is closed."""

    def __init__(self, address: tuple[str, int], text: Callable[[], str]) -> None:
        class Page(BaseHTTPRequestHandler):
            timeout = REQUEST_S

            def do_GET(self) -> None:
                found = self.path.partition("?")[0] in {"/", "/metrics"}
                body = text().encode() if found else b"upx: there is /metrics\n"
                self.send_response(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)
                self.send_header("Content-Type", CONTENT)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
                """Who asks for figures is no news."""

        try:
            self._server = ThreadingHTTPServer(address, Page)
        except OSError as error:
            raise WorkerStartError(
                f"metrics cannot be served at {address[0]}:{address[1]}: {error.strerror or error}",
                hint="take another --metrics",
            ) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="upx-metrics", daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
