"""An HTTP server on 127.0.0.1 that can fail: ranges and ETags as they should be, and faults that a test asks for.

    with FaultServer() as server:
        route = server.add("/file.bin", Route(Content(1 << 20, seed=3), drops=[70_000]))
        ...  # fetch server.url("/file.bin")
        assert route.sent <= 1.2 * (1 << 20)

A plain module: scripts put this folder on their path. Contents are made as they are sent, so none is held in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

MIB = 1 << 20
# Little enough that what a client never saw is not counted as sent to it.
SEND_BUFFER = 128 * 1024
PIECE = 64 * 1024


class Content:
    """``size`` bytes that follow from ``seed``: random, no two mebibytes alike, and free to read anywhere."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seed = seed

    @cached_property
    def _base(self) -> memoryview:
        return memoryview(random.Random(self.seed).randbytes(min(2 * MIB, max(self.size * 2, 2))))

    def read(self, start: int, count: int) -> memoryview:
        """At most ``count`` bytes from ``start`` on; at least one unless that is the end."""
        index, offset = divmod(start, MIB)
        count = max(0, min(count, self.size - start, MIB - offset))
        first = index * 7919 % MIB if self.size > MIB else 0
        return self._base[first + offset : first + offset + count]

    def blocks(self, start: int = 0) -> Iterator[memoryview]:
        while block := self.read(start, MIB):
            yield block
            start += len(block)

    @cached_property
    def sha256(self) -> str:
        whole = hashlib.sha256()
        for block in self.blocks():
            whole.update(block)
        return whole.hexdigest()

    @property
    def bytes(self) -> bytes:
        return b"".join(self.blocks())


class Literal(Content):
    """Content that is given."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self.data = data

    def read(self, start: int, count: int) -> memoryview:
        return memoryview(self.data)[start : start + count]


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0


@dataclass
class Route:
    """What a path answers, and how it fails. Lists are used up, one item a request.

    ``statuses``: answered before anything else. ``drops``: bytes of a body after which the connection ends, 0 for none
    at all; a negative number ends it with a reset. ``dropper`` makes them without end. ``wrong``: how often the byte in
    the middle is sent wrong, -1 for ever. ``length``: ``true``, ``chunked``, ``close`` (neither), or a number that is
    announced instead. ``stalls``: bytes after which nothing comes any more. ``trickle``: (bytes, seconds between
    them). ``ranges``: ``yes``, ``ignored``, or ``shifted`` (another piece than was asked for). ``raw``: bytes sent
    instead of any answer. ``extra``: bytes behind the end. ``sent`` counts bytes of bodies.
    """

    content: Content
    etag: str | None = ""
    last_modified: str = ""
    content_type: str = "application/octet-stream"
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""
    drops: list[int] = field(default_factory=list)
    dropper: Callable[[], int | None] | None = None
    wrong: int = 0
    length: str | int = "true"
    stalls: list[int] = field(default_factory=list)
    trickle: tuple[int, float] | None = None
    ranges: str = "yes"
    raw: Iterator[bytes] | None = None
    extra: bytes = b""
    sent: int = 0
    wrong_sent: int = 0
    seen: list[Seen] = field(default_factory=list)
    on_piece: Callable[[int], None] | None = None

    @property
    def tag(self) -> str:
        if self.etag is None:
            return ""
        return self.etag or f'"{self.content.seed}-{self.content.size}"'

    @property
    def gets(self) -> int:
        return sum(seen.method == "GET" for seen in self.seen)


class FaultServer:
    """Routes behind a port; ``with`` starts and ends it. ``lookup`` answers for paths that have no route.

    ``fast``: what measures speed wants large pieces, and does not ask what a client saw of them.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, fast: bool = False) -> None:
        self.piece = MIB if fast else PIECE
        self.send_buffer = None if fast else SEND_BUFFER
        self.routes: dict[str, Route] = {}
        self.stopping = threading.Event()
        self.lookup: Callable[[Seen], Route | None] = lambda _seen: None
        self._scheme = "https" if tls else "http"
        self._http = _Server(self, tls)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._http.wait_for_handlers()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def base(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return self.base + path

    def add(self, path: str, route: Route) -> Route:
        self.routes[path] = route
        return route


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, owner: FaultServer, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self._tls = tls
        self._running = 0
        self._idle = threading.Condition()

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._idle:
            self._running += 1
        try:
            if self.owner.send_buffer:
                request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.owner.send_buffer)
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                with self._tls.wrap_socket(request, server_side=True) as wrapped:
                    super().finish_request(wrapped, client_address)
            else:
                super().finish_request(request, client_address)
        except OSError:
            pass  # the client left, which is its right
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def wait_for_handlers(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: not self._running, timeout=5)


class _DropError(OSError):
    """The connection is to end here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 30

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.close_connection = True
        owner = self.server.owner
        path = self.path.partition("?")[0]
        seen = Seen(self.command, self.path, dict(self.headers.items()))
        route = owner.routes.get(self.path) or owner.routes.get(path) or owner.lookup(seen)
        if route is None:
            self._status(404)
            return
        route.seen.append(seen)
        with contextlib.suppress(_DropError):
            self._by(route, seen)

    def _by(self, route: Route, seen: Seen) -> None:
        if route.raw is not None:
            for piece in route.raw:
                self.wfile.write(piece)
            return
        status = route.statuses.pop(0) if route.statuses else 200
        if status != 200:
            seen.status = status
            self._status(status, route.headers)
            return
        if route.redirect:
            seen.status = 302
            self._status(302, {"Location": route.redirect, **route.headers})
            return
        start = self._start(route)
        seen.status = 416 if start is None else 206 if start else 200
        if start is None:
            self._status(416, {"Content-Range": f"bytes */{route.content.size}"})
            return
        self._head(route, start)
        if self.command == "GET":
            self._body(route, start)

    def _start(self, route: Route) -> int | None:
        """Where the answer begins; None when that is behind the end."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or route.ranges == "ignored":
            return 0
        if (seal := self.headers.get("If-Range")) is not None and seal not in {route.tag, route.last_modified}:
            return 0
        return int(match[1]) if int(match[1]) < route.content.size else None

    def _head(self, route: Route, start: int) -> None:
        size = route.content.size
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if route.ranges == "shifted" else start
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        if route.length == "true":
            self.send_header("Content-Length", str(size - start))
        elif route.length == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif isinstance(route.length, int):
            self.send_header("Content-Length", str(route.length - start))
        if route.ranges == "yes":
            self.send_header("Accept-Ranges", "bytes")
        for name, value in (("ETag", route.tag), ("Last-Modified", route.last_modified)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Type", route.content_type)
        for name, value in route.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, route: Route, start: int) -> None:
        limit = route.drops.pop(0) if route.drops else route.dropper() if route.dropper else None
        stall = route.stalls.pop(0) if route.stalls else None
        if limit == 0:
            self._drop(reset=False)
        at, sent = start, 0
        while block := route.content.read(at, self._most(route, sent, limit, stall)):
            self._piece(route, block, at)
            at += len(block)
            sent += len(block)
            self._interrupt(route, sent, limit, stall)
        if route.extra:
            self._write(route, route.extra)
        if route.length == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def _most(self, route: Route, sent: int, limit: int | None, stall: int | None) -> int:
        ends = [abs(end) - sent for end in (limit, stall) if end is not None and abs(end) > sent]
        return min([self.server.owner.piece, *ends, *([route.trickle[0]] if route.trickle else [])])

    def _interrupt(self, route: Route, sent: int, limit: int | None, stall: int | None) -> None:
        if route.on_piece is not None:
            route.on_piece(route.sent)
        if limit is not None and sent >= abs(limit):
            self._drop(reset=limit < 0)
        if stall is not None and sent >= stall:
            self._idle_until_left()
        if route.trickle is not None:
            time.sleep(route.trickle[1])

    def _piece(self, route: Route, block: memoryview, at: int) -> None:
        middle = route.content.size // 2
        data: bytes | memoryview = block
        if route.wrong and at <= middle < at + len(block):
            changed = bytearray(block)
            changed[middle - at] ^= 0xFF
            data = bytes(changed)
            route.wrong -= route.wrong > 0
            route.wrong_sent += 1
        self._write(route, data)

    def _write(self, route: Route, data: bytes | memoryview) -> None:
        # Counted first: a client may have it all before this thread runs again.
        route.sent += len(data)
        if route.length == "chunked":
            self.wfile.write(b"%x\r\n" % len(data) + bytes(data) + b"\r\n")
        else:
            self.wfile.write(data)

    def _drop(self, *, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        raise _DropError

    def _idle_until_left(self) -> None:
        self.connection.settimeout(0.02)
        while not self.server.owner.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        raise _DropError

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
