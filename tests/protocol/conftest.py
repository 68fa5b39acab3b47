"""A stage with a backend of its own, and workers that run from it.

Imports nothing but the protocol's packages: this folder runs on Python 3.9 too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import upx_protocol
from upx_protocol.options import WorkerOptions
from upx_protocol.testing import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = Path(upx_protocol.__file__).parent

# Doubles and does, tile by tile, what the batch's parameters say.
TOY = """
import ctypes, time
import numpy as np
from upx_protocol.errors import BadInputError, FatalError, OutOfMemoryError, TransientError
from upx_protocol.upscaler import LoadResult, Upscaler

ERRORS = {"oom": OutOfMemoryError, "input": BadInputError, "transient": TransientError, "fatal": FatalError,
          "memory": MemoryError, "bug": ZeroDivisionError, "exit": SystemExit}

class Backend(Upscaler):
    def load(self, request):
        request.progress("reading", 1, 2)
        time.sleep(request.params.get("sleep", 0))
        if "fail" in request.params:
            raise ERRORS[request.params["fail"]]("told to")
        return LoadResult(scale=np.int64(2), dtypes=("uint8", "float32"))

    def upscale(self, batch):
        if "fail" in batch.params:
            raise ERRORS[batch.params["fail"]]("told to")
        time.sleep(batch.params.get("sleep", 0))
        if batch.params.get("c_sleep"):
            ctypes.CDLL(None).sleep(int(batch.params["c_sleep"]))
        results = [np.repeat(np.repeat(tile, 2, axis=0), 2, axis=1) for tile in batch.tiles]
        if batch.params.get("short"):
            return results[:-1]
        if batch.params.get("nan"):
            results[0] = results[0].astype(np.float32)
            results[0][0, 0, 0] = np.nan
        if batch.params.get("crop"):
            results = [result[1:] for result in results]
        return results
"""


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a host stages it: boot.py, the protocol package, and backends."""
    folder = tmp_path_factory.mktemp("stage")
    shutil.copytree(PACKAGE, folder / "upx_protocol", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE / "boot.py", folder)
    (folder / "toy.py").write_text(TOY)
    (folder / "broken.py").write_text("import a_module_that_does_not_exist\n")
    (folder / "slow.py").write_text("import time\ntime.sleep(1.5)\nfrom toy import Backend\n")
    return folder


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="upx-"))
    yield folder
    left = [path.name for path in folder.iterdir() if path.suffix == ".sock"]
    shutil.rmtree(folder)
    assert not left, f"socket files left: {left}"


class RunningWorker:
    """A worker process and what it was told."""

    def __init__(self, process: subprocess.Popen[bytes], options: WorkerOptions, stderr: Path) -> None:
        self.process, self.options, self._stderr = process, options, stderr

    @property
    def stderr(self) -> str:
        """All that it wrote so far."""
        return self._stderr.read_text()

    def ended(self, timeout: float = 5.0) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(timeout)


@pytest.fixture
def start(stage: Path, sockets: Path) -> Iterator[Callable[..., RunningWorker]]:
    """``start(**options)``: a worker of the toy backend, tied to this process unless told otherwise."""
    running: list[RunningWorker] = []

    def start_worker(*, pass_fds: tuple[int, ...] = (), **options: object) -> RunningWorker:
        number = len(running)
        told = WorkerOptions("toy", "toy", f"ipc://{sockets}/{number}.sock", parent=os.getpid())
        told = replace(told, **options)  # type: ignore[arg-type]
        if not told.tied:
            told = replace(told, parent=0)
        log = sockets / f"{number}.log"
        with log.open("wb") as stderr:
            command = [sys.executable, "-I", str(stage / "boot.py"), told.to_json()]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, pass_fds=pass_fds)
        running.append(RunningWorker(process, told, log))
        return running[-1]

    yield start_worker
    for worker in running:
        if worker.process.poll() is None:
            worker.process.kill()
            # A killed worker cannot remove its socket.
            Path(worker.options.endpoint.replace("ipc://", "")).unlink(missing_ok=True)
        worker.process.wait(5.0)


@pytest.fixture
def connect() -> Iterator[Callable[..., FakeHost]]:
    """``connect(worker)``: a host that has said Hello; ``hello=False`` leaves that to the test."""
    hosts: list[FakeHost] = []

    def connect_host(worker: RunningWorker, *, hello: bool = True, endpoint: str | None = None) -> FakeHost:
        host = FakeHost(endpoint or worker.options.endpoint)
        hosts.append(host)
        if hello:
            host.hello()
        return host

    yield connect_host
    for host in hosts:
        host.close()
