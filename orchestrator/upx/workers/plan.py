"""What a worker is made of and how long things may take: the two frozen records that every other module reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from upx.specs import ParameterValue


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Everything that decides which worker serves a job, and how to start one.

    ``module`` is the adapter's full name ("upx_backends.span.worker"), ``stage`` the folder that holds boot.py,
    ``build`` the digest of the staged code, ``env`` the environment's fingerprint, ``environ`` the child's complete
    environment. ``env_lock``: a file on which a shared lock is held while a worker lives. ``weights`` is the digest
    of ``files``; ``params`` are those that a load needs. ``workers``: at most so many at a time. ``keep_alive``:
    0 ties a worker to this host, None keeps it for ever, else it leaves after so many seconds without a host.
    ``memory``: bytes that one worker needs, 0 where unknown. ``share``: tiles lie in memory that host and worker
    both map, where the system has it.
    """

    backend: str
    module: str
    python: Path
    stage: Path
    build: str
    model: str
    env: str = ""
    env_lock: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    weights: str = ""
    device: str = "cpu"
    device_identity: str = "cpu"
    precision: str = "fp32"
    threads: int = 0
    params: Mapping[str, ParameterValue] = field(default_factory=dict[str, "ParameterValue"])
    workers: int = 1
    keep_alive: float | None = 0
    memory: int = 0
    share: bool = True

    @property
    def tied(self) -> bool:
        """Whether a worker dies with this host."""
        return self.keep_alive == 0

    @property
    def identity(self) -> str:
        """The registry key: workers of one identity can stand in for each other. SHA-256 in hex."""
        return _digest(
            self.backend, self.env, self.build, self.device_identity, self.weights, self.precision, self.threads,
            dict(self.params),
        )  # fmt: skip

    @property
    def load_key(self) -> str:
        """The digest of everything that a ``Load`` says; the same key twice is no work. SHA-256 in hex."""
        return _digest(
            self.model, self.weights, dict(self.files), self.device, self.precision, self.threads, dict(self.params)
        )


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
