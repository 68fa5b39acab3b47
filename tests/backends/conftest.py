"""Backends behind their worker loop: staged and started as the host does it, spoken to message by message."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from upx_protocol.options import WorkerOptions
from upx_protocol.testing import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from upx.config import Settings
    from upx.specs import BackendSpec


class Bench:
    """A backend's worker with a host that has said Hello. ``stderr``: what the worker wrote so far."""

    def __init__(self, host: FakeHost, process: subprocess.Popen[bytes], log: Path) -> None:
        self.host, self.process, self._log = host, process, log

    @property
    def stderr(self) -> str:
        return self._log.read_text()


@contextmanager
def running(spec: BackendSpec, python: Path, settings: Settings) -> Iterator[Bench]:
    """The backend's worker in that interpreter, staged from its folder; gone at the end."""
    from upx.workers.stage import stage

    folder = Path(tempfile.mkdtemp(prefix="upx-"))
    staged = stage(spec.folder, spec.module, settings)
    # This host pings nobody: between two of its tests another one may compute for as long as it likes.
    options = WorkerOptions(spec.name, f"{spec.module}.worker", f"ipc://{folder}/s", parent=os.getpid(), silence_s=1e9)
    environ = {"PATH": os.environ["PATH"], **spec.environ}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-I", staged.folder / "boot.py", options.to_json()],
            stdin=subprocess.DEVNULL,
            stderr=log,
            cwd=staged.folder,
            env=environ,
        )
    try:
        with FakeHost(options.endpoint, timeout=60.0) as host:
            host.hello()
            yield Bench(host, process, folder / "log")
    finally:
        process.kill()
        process.wait(5.0)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def running_backend(settings: Settings) -> Callable[[BackendSpec, Path], AbstractContextManager[Bench]]:
    """``running_backend(spec, python)``: a context with the backend's worker."""
    return lambda spec, python: running(spec, python, settings)


@pytest.fixture
def nearest(settings: Settings) -> Iterator[Bench]:
    """The double, in this interpreter."""
    from upx.catalog import Catalog

    with running(Catalog(settings).backend("nearest"), Path(sys.executable), settings) as bench:
        yield bench
