"""Tiny wheels, locks of them, and a package index on the loopback that can misbehave."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import threading
import zipfile
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from upx.config import Settings
from upx.specs import EnvSpec

PYTHON = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
DATA = bytes(range(256)) * 16


def make_wheel(
    folder: Path, name: str, version: str = "1.0", *, data: bytes = DATA, source: str = "", lie: bool = False
) -> Path:
    """A pure wheel: NAME/__init__.py, NAME/data.bin and a command; ``lie``: its RECORD tells another size."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"VERSION = {version!r}\n{source}\n".encode(),
        f"{name}/data.bin": data,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-run = {name}:VERSION\n".encode(),
    }
    rows = [f"{path},sha256={_b64(body)},{len(body)}" for path, body in files.items()]
    files[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    if lie:
        files[f"{name}/data.bin"] = b"short"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, body in files.items():
            archive.writestr(path, body)
    return wheel


def write_lock(path: Path, wheels: list[Path], *, wrong: str = "") -> Path:
    lines = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        digest = "0" * 64 if name == wrong else digest
        lines += [f"{name}=={version} \\", f"    --hash=sha256:{digest}"]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_settings(root: Path, **changes: object) -> Settings:
    """Folders, and above all uv's cache, of the test alone."""
    usual: dict[str, object] = {
        "data_dir": root / "data",
        "cache_dir": root / "cache",
        "state_dir": root / "state",
        "uv_cache": root / "uv-cache",
        "python": PYTHON,
        "offline": True,
        "child_env": {"PATH": os.environ["PATH"], "HOME": str(root)},
    }
    return Settings(**{**usual, **changes})  # type: ignore[arg-type]


@dataclass
class House:
    """A wheelhouse, its lock and the spec of an environment made from both."""

    root: Path
    wheels: list[Path] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "wheels"

    def add(self, name: str, **how: object) -> Path:
        wheel = make_wheel(self.folder, name, **how)  # type: ignore[arg-type]
        self.wheels.append(wheel)
        return wheel

    def spec(self, name: str = "tiny", *, wheels: list[Path] | None = None, wrong: str = "", **how: object) -> EnvSpec:
        chosen = self.wheels if wheels is None else wheels
        lock = write_lock(self.root / f"{name}.lock", chosen, wrong=wrong)
        imports = tuple(wheel.name.split("-")[0] for wheel in chosen)
        return EnvSpec(name=name, lock=lock, **{"imports": imports, **how})  # type: ignore[arg-type]


class Index:
    """A simple package index. ``trouble``: "" serves, "cut" ends each wheel in its middle, "stall" waits there."""

    def __init__(self, house: House, trouble: str = "") -> None:
        self.house, self.trouble = house, trouble
        self.stalled, self.go_on = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.server.daemon_threads = False
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/simple"


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, index: Index, *rest: object) -> None:
        self.index = index
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        parts = [part for part in self.path.split("/") if part]
        if parts[0] == "simple":
            names = [wheel.name for wheel in self.index.house.wheels if wheel.name.split("-")[0] == parts[1]]
            links = "".join(f'<a href="/files/{name}">{name}</a>' for name in names)
            self._answer(f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html")
        else:
            self._answer((self.index.house.folder / parts[1]).read_bytes(), "application/octet-stream")

    def do_HEAD(self) -> None:
        self.send_error(405)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.index.trouble and kind != "text/html":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            if self.index.trouble == "cut":
                return
            self.index.stalled.set()
            self.index.go_on.wait(30)
            body = body[len(body) // 2 :]
        try:
            self.wfile.write(body)
        except OSError:  # uv was killed meanwhile, as some tests want
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _b64(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
