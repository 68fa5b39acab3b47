"""What a box says of itself to Prometheus: a text page over HTTP, for whoever may connect; loopback unless told.

The figures come from the registry entries that the workers keep themselves, and from a ``Ping`` to each of them for
every page, over connections that are kept: a page costs nobody's tiles anything.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from upx.errors import UsageError, WorkerStartError
from upx.workers.watch import Target, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from upx.config import Settings
    from upx.serving.worker import ServedWorker
    from upx.workers.registry import WorkerInfo
    from upx_protocol.messages import Pong

log = logging.getLogger("upx.serve")

CONTENT = "text/plain; version=0.0.4; charset=utf-8"
LOOPBACK = "127.0.0.1"
REQUEST_S, LOOK_S = 5.0, 1.0
MOST_PORT = 65_535
MOST_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a worker at one time: its entry, and its answer, None where there is none."""

    worker: ServedWorker
    info: WorkerInfo | None
    pong: Pong | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of every worker; None where it is not known, which Prometheus must not take for a zero."""

    name: str
    kind: str
    help: str
    value: Callable[[Figures], float | None]


def _of_pong(field: str) -> Callable[[Figures], float | None]:
    return lambda figures: getattr(figures.pong, field) if figures.pong is not None else None


def _of_entry(field: str) -> Callable[[Figures], float | None]:
    return lambda figures: getattr(figures.info, field) if figures.info is not None else None


METRICS = (
    Metric("upx_worker_up", "gauge", "Whether the worker has a process that has bound.", lambda f: f.info is not None),
    Metric("upx_worker_restarts_total", "counter", "Starts after the first.", lambda f: f.worker.restarts),
    Metric("upx_worker_hosts", "gauge", "Hosts with a session.", _of_entry("hosts")),
    Metric("upx_worker_memory_bytes", "gauge", "Resident set.", _of_entry("memory")),
    Metric("upx_worker_idle_seconds", "gauge", "Since the last host has left.", _of_entry("idle")),
    Metric(
        "upx_worker_uptime_seconds", "gauge", "Since the process was born.",
        lambda f: time.time() - f.info.started if f.info is not None and f.info.started else None,
    ),
    Metric("upx_worker_queue_tiles", "gauge", "Tiles that wait or are computed.", _of_pong("queued")),
    Metric("upx_worker_tiles_total", "counter", "Tiles done by this process.", _of_pong("tiles_done")),
    Metric("upx_worker_pixels_total", "counter", "Input pixels of the tiles done.", _of_pong("pixels_done")),
    Metric("upx_worker_busy_seconds_total", "counter", "Time with a batch in work.", _of_pong("busy_s")),
)  # fmt: skip
INFO = Metric("upx_worker_info", "gauge", "1; which model is loaded, and on what.", lambda _: 1)


class Statistics:
    """The page of a box. ``page`` is for any thread, one after the other; close it."""

    def __init__(self, box: str, workers: Callable[[], Sequence[ServedWorker]], settings: Settings) -> None:
        self._box, self._workers = box, workers
        self._watcher = Watcher(settings)
        self._lock, self._closed = threading.Lock(), False

    def page(self) -> str:
        """The text that is served, with the answers that come within a second."""
        with self._lock:
            if self._closed:  # A request that was under way when the box ended.
                return ""
            found = [(worker, worker.info) for worker in self._workers()]
            targets = {each.port: Target.of(info) for each, info in found if info is not None}
            answers = self._watcher.look(list(targets.values()), most=LOOK_S)
        pongs = {port: answers[target].pong for port, target in targets.items()}
        return page(self._box, [Figures(worker, info, pongs.get(worker.port)) for worker, info in found])

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._closed = True
            self._watcher.close()


def page(box: str, figures: Sequence[Figures]) -> str:
    """Every metric of every worker, by port, backend and device; the model stands apart, since counters outlive it."""
    lines = (line for metric in METRICS for line in _lines(metric, box, figures))
    return "".join(f"{line}\n" for line in (*lines, *_lines(INFO, box, figures)))


def _lines(metric: Metric, box: str, figures: Sequence[Figures]) -> Iterable[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for each in figures:
        value = metric.value(each)
        if value is None:
            continue
        facts = {
            "box": box,
            "port": str(each.worker.port),
            "backend": each.worker.plan.backend,
            "device": each.worker.plan.device,
        }
        if metric is INFO:
            facts["model"] = each.info.model if each.info is not None else ""
            facts["device_name"] = each.pong.device_name if each.pong is not None else ""
        labels = ",".join(f'{name}="{_quoted(text)}"' for name, text in facts.items())
        # All digits: a counter that is rounded to six of them stands still for long, and then leaps.
        yield f"{metric.name}{{{labels}}} {float(value)!r}"


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def parse_metrics(text: str) -> tuple[str, int]:
    """(address, port) of ``PORT`` or ``ADDRESS:PORT``; UsageError for anything else."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > MOST_PORT:
        raise UsageError(f"{text!r} is no place for metrics", hint="--metrics 9600, or --metrics 0.0.0.0:9600")
    return host.strip("[]") or LOOPBACK, int(port)


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingHTTPServer):
    """At most so many connections at a time; one more takes the place of the oldest."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.Semaphore(MOST_CONNECTIONS)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, None] = {}
        super().__init__(address, page)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self._end_oldest()
            if not self._places.acquire(timeout=LOOK_S):
                return self.shutdown_request(request)
        with self._lock:
            self._open[request] = None
        try:
            return super().process_request(request, client_address)
        except BaseException:
            self._leave(request)
            raise

    def _end_oldest(self) -> None:
        with self._lock, suppress(StopIteration, OSError):
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.shutdown(socket.SHUT_RDWR)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  the base class's signature
        """Who goes in the middle of a page is no news."""
        error = sys.exc_info()[1]
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        log.log(level, "a request for figures has failed", exc_info=error)


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
            self._server = _Server(address, Page)
        except OSError as error:
            raise WorkerStartError(
                f"metrics cannot be served at {_place(*address)}: {error.strerror or error}",
                hint="take another --metrics",
            ) from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="upx-metrics", daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
