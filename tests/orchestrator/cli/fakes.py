"""A host without workers: what a picture's bytes say decides how its job ends."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from upx.errors import (
    CancelledError,
    ModelError,
    OutOfMemoryError,
    OutputExistsError,
    ParameterError,
    UnreadablePictureError,
    UpxError,
    WorkerLostError,
)
from upx.models.shelf import Shelf
from upx.result import JobProgress, Record, Result
from upx.routes import choose
from upx.specs import BackendSpec, Capabilities, EnvSpec, Licence, ModelSpec, ParameterSpec, SizeRequirements
from upx.venvs.venv import Damage, Repair, SiblingDamage, Venv
from upx.workers.registry import WorkerInfo

if TYPE_CHECKING:
    from upx.config import Settings

TILES = 4
DEADLINE_S = 20.0
FAILURES: dict[bytes, UpxError] = {
    b"bad": UnreadablePictureError("not a picture", hint="give a picture"),
    b"oom": OutOfMemoryError("out of memory with tiles of 32", hint="-d cpu"),
    b"lost": WorkerLostError("the worker died three times", hint="upx doctor"),
    b"small tile": ParameterError("a tile of 1 pixels is too small", hint="-t 64"),
    b"taken": OutputExistsError("it exists already", hint="--on-exists overwrite"),
    b"poison": ModelError("a tile killed two workers", hint="report it"),
}


def backend(name: str = "span", scales: tuple[int, ...] = (4, 2)) -> BackendSpec:
    return BackendSpec(
        name=name,
        title=f"{name} for tests",
        folder=Path("/backends") / name,
        module=f"tests.{name}",
        env=EnvSpec(name=name, lock=Path("/envs") / f"{name}.lock"),
        models=tuple(
            ModelSpec(name=f"{name}-x{scale}", scale=scale, licence=Licence("Apache-2.0")) for scale in scales
        ),
        default_model=f"{name}-x{scales[0]}",
        aliases=(f"{name}net",),
        parameters=(ParameterSpec(name="delay", kind="float", default=0.0, minimum=0.0, help="seconds"),),
    )


class FakeCatalog:
    def __init__(self, specs: list[BackendSpec]) -> None:
        self.specs = specs
        self.errors: list[UpxError] = []

    def backends(self):
        return self.specs

    def envs(self):
        return [spec.env for spec in self.specs]

    def problems(self):
        return self.errors


class FakeSession:
    def __init__(self, host: FakeHost, route) -> None:
        self.host = host
        self.route = route
        self.ran: list[str] = []
        self.closed = False
        self.cancelled = threading.Event()
        self.started = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def prepare(self):
        self.host.prepared += 1
        for event in self.host.events:
            self.host.on_event(event)
        if self.host.not_ready is not None:
            raise self.host.not_ready

    def warm(self):
        self.prepare()
        return Capabilities(self.route.model.scale, SizeRequirements(), "cpu")

    def run(self, source, target, options, *, on_progress=None, cancel=None, tracer=None):
        content = source if isinstance(source, bytes) else source.read_bytes()
        self.ran.append(content.decode("latin-1"))
        self.started.set()
        report = on_progress or (lambda _: None)
        report(JobProgress("decode"))
        self.host.options.append(options)
        if content in FAILURES:
            raise FAILURES[content]
        if content == b"bug":
            raise ZeroDivisionError("a bug\nof ours")
        if content == b"late":
            time.sleep(0.2)
        if content == b"endless":
            self._wait_for(cancel)
        for done in range(TILES + 1):
            report(JobProgress("inference", done, TILES))
        return Result(target, self._write(content, target, options))

    def _wait_for(self, cancel):
        if not cancel.wait(DEADLINE_S):
            raise AssertionError("nobody cancelled")
        self.cancelled.set()
        raise CancelledError("cancelled")

    def _write(self, content, target, options):
        big = b"big " + content
        if isinstance(target, Path):
            target.write_bytes(big)
        else:
            target.write(big)
            target.flush()
        return Record(
            input="a source",
            output=str(target) if isinstance(target, Path) else None,
            status="done",
            in_size=(8, 8),
            out_size=(32, 32),
            backend=self.route.backend.name,
            model=self.route.model.name,
            scale=self.route.model.scale,
            seed=options.seed,
            tiles=TILES,
            seconds=0.5,
            stages={"inference": 0.4, "encode": 0.1},
            tile=(8, 8),
            warnings=("a palette was converted",) if content == b"warn" else (),
        )


@dataclass
class FakeHost:
    settings: Settings
    specs: list[BackendSpec] = field(default_factory=lambda: [backend(), backend("tiny", (3,))])
    not_ready: UpxError | None = None
    events: tuple[object, ...] = ()
    requests: list = field(default_factory=list)
    options: list = field(default_factory=list)
    sessions: list = field(default_factory=list)
    prepared: int = 0

    def __post_init__(self) -> None:
        self.catalog = FakeCatalog(self.specs)
        self.envs = FakeEnvs()
        self.on_event = lambda _: None
        self.shelf = Shelf(self.settings, self.catalog, self.envs, lambda *_: None, self.on_event)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for session in self.sessions:
            session.closed = True

    def open(self, request, *, offline=False):
        self.requests.append(request)
        self.offline = offline
        session = FakeSession(self, choose(request, self.catalog.backends()))
        self.sessions.append(session)
        return session

    def setup(self, name, *, flavour="auto", offline=False):
        route = choose_backend(self, name)
        if self.not_ready is not None:
            raise self.not_ready
        return venv(route)

    def repair(self, name, *, flavour="auto", offline=False):
        built = venv(choose_backend(self, name))
        damage = Damage(Path("/venvs/x/a.py"), "a", "hash")
        return Repair(built, (damage,), (SiblingDamage("tiny", Path("/venvs/tiny"), (damage,)),), cache_cleaned=False)


class FakeEnvs:
    def __init__(self) -> None:
        self.records: list = []
        self.damage: list[Damage] = []

    def find(self, spec):
        return venv(spec.name) if spec.name == "span" else None

    def list_envs(self, specs=()):
        return self.records

    def check(self, found, *, hashes):
        assert hashes
        return self.damage


def choose_backend(host: FakeHost, name: str) -> str:
    from upx.routes import Request

    return choose(Request(backend=name), host.catalog.backends()).backend.name


def venv(name: str) -> Venv:
    folder = Path("/venvs") / f"{name}-0123456789ab"
    return Venv(folder, folder / "bin" / "python", folder / "lib", "0123456789ab", "cpu", {"numpy": "2.4"})


def worker(name: str = "span", ordinal: int = 0, **changes) -> WorkerInfo:
    facts = {"pid": 42, "backend": name, "model": f"{name}-x4", "device": "cpu", "endpoint": "ipc://x", "tied": False}
    return WorkerInfo(Path("/x.json"), 1, "1a2b3c4d5e6f", ordinal, alive=True, **{**facts, **changes})
