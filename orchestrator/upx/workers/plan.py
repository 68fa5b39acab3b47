"""What a worker is made of and how long things may take: the two frozen records that every other module reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from upx.specs import ParameterValue
    from upx.workers.sending import Supply


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What a worker is to load, wherever it is.

    ``env`` and ``build``: the environment's fingerprint and the digest of the staged code, empty for any. ``files``:
    role to path, empty for a worker of another machine, which finds its own; ``weights``: their digest, empty for any.
    ``params`` are those that a load needs. ``workers``: at most so many at a time. ``keep_alive``: 0 ties a worker to
    this host, None keeps it for ever, else it leaves after so many seconds without a host. ``share``: tiles lie in
    memory that host and worker both map, where the system has it. ``scale``: the model's, 0 for any. ``place``: the
    name of another machine, ``supply``: what may be sent there, ``heard``: who wants to know that it gets on with it.
    """

    backend: str
    model: str
    env: str = ""
    build: str = ""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    weights: str = ""
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 0
    params: Mapping[str, ParameterValue] = field(default_factory=dict[str, "ParameterValue"])
    workers: int = 1
    keep_alive: float | None = 0
    share: bool = True
    scale: int = 0
    place: str = ""
    supply: Supply | None = field(default=None, repr=False, compare=False)
    heard: Callable[[float], None] | None = field(default=None, repr=False, compare=False)

    @property
    def tied(self) -> bool:
        """Whether a worker dies with this host."""
        return self.keep_alive == 0

    @property
    def far(self) -> bool:
        """Whether a worker is on another machine."""
        return bool(self.place)

    @property
    def load_key(self) -> str:
        """The digest of everything that a ``Load`` says; the same key twice is no work. SHA-256 in hex."""
        return _digest(
            self.model, self.weights, dict(self.files), self.device, self.precision, self.threads, dict(self.params)
        )

    def at(self, place: str, *, precision: str) -> LoadPlan:
        """The same load on another machine, which knows its files and devices itself."""
        return LoadPlan(
            backend=self.backend, model=self.model, weights=self.weights, device="", precision=precision,
            params=self.params, keep_alive=None, share=False, scale=self.scale, place=place, supply=self.supply,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan(LoadPlan):
    """Everything that decides which worker of this machine serves a job, and how to start one.

    ``module`` is the adapter's full name ("upx_backends.span.worker"), ``stage`` the folder that holds boot.py,
    ``environ`` the child's complete environment. ``env_lock``: a file on which a shared lock is held while a worker
    lives. ``memory``: bytes that one worker needs, 0 where unknown.
    """

    module: str
    python: Path
    stage: Path
    env_lock: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    device_identity: str = "cpu"
    memory: int = 0

    @property
    def identity(self) -> str:
        """The registry key: workers of one identity can stand in for each other. SHA-256 in hex."""
        return _digest(
            self.backend, self.env, self.build, self.device_identity, self.weights, self.precision, self.threads,
            dict(self.params),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines and limits, in seconds where nothing else is said.

    ``hello``: a worker's answer to the first message. ``start``: from spawn to that answer. ``load``: import and
    load, anew with every report of progress. ``ping`` and ``misses``: a worker without a started tile is dead after
    so many unanswered pings. A started batch has max(``busy``, ``busy_factor`` x the 99th percentile of its size),
    and max(``busy``, ``busy_first``) while nothing is known of its size. ``backoff``: pause before the first
    restart, doubled by each further one up to ``backoff_most``. ``starts``: give up after so many starts in a row
    that never served; ``deaths``: after so many deaths in a row without one tile done (a poison tile needs three
    when the report of its start died with the worker). ``retries``: tries of a batch that fails as "transient".

    Of boxes: ``far_hello``, ``far_ping`` and ``far_misses`` as above; ``reach``: how long one that never served is
    tried, ``away``: one that did; ``far_backoff_most``: the longest pause between two tries.
    """

    hello: float = 2.0
    start: float = 60.0
    load: float = 300.0
    ping: float = 1.0
    misses: int = 5
    busy: float = 30.0
    busy_factor: float = 10.0
    busy_first: float = 300.0
    backoff: float = 0.1
    backoff_most: float = 5.0
    starts: int = 3
    deaths: int = 4
    retries: int = 5
    evict: float = 10.0
    far_hello: float = 10.0
    far_ping: float = 5.0
    far_misses: int = 3
    far_backoff_most: float = 32.0
    reach: float = 15.0
    away: float = 90.0
