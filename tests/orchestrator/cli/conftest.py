"""A command line with a host that has no workers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeHost

from upx.cli import _host
from upx.cli._app import run
from upx.config import Settings


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def host(tmp_path, monkeypatch) -> FakeHost:
    settings = Settings.from_env({"UPX_HOME": str(tmp_path / "home"), "PATH": ""})
    fake = FakeHost(settings)

    def make_host(on_event=None):
        fake.on_event = on_event or (lambda _: None)
        return fake

    monkeypatch.setattr(_host, "make_host", make_host)
    monkeypatch.setattr(_host, "read_settings", lambda: settings)
    return fake


@pytest.fixture
def upx(host, capsys, tmp_path, monkeypatch):
    """``upx("up", "a.png")`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> Ended:
        code = run([str(arg) for arg in args])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return call


@pytest.fixture
def picture(tmp_path):
    """``picture("a.png", b"late")``: a file whose bytes tell the fake what to do."""

    def make(name: str, content: bytes = b"fine") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make
