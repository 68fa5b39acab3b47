"""One worker of a box: started, watched, restarted when it dies, drained when it is to be another."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from upx.errors import WorkerStartError
from upx.serving.keeper import Keeper, Line
from upx.serving.taking import TakingLine, said
from upx.workers import birth, faults, process, registry
from upx_protocol.options import WorkerOptions

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from pathlib import Path

    from upx.config import Settings
    from upx.workers.plan import WorkerPlan

log = logging.getLogger("upx.serve")

BACKOFF_S, MOST_BACKOFF_S = 0.2, 30.0
# A worker that lived so long had a good start.
GOOD_S = 60.0
CREDIT_TILES, CREDIT_BYTES, MAX_BYTES = 32, 128 * 1024 * 1024, 256 * 1024 * 1024
SILENCE_S = 15.0
# How long another command may hold the registry.
LOCK_S = 5.0
BURY_S = 1.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What all workers of a box share. ``ports``: of all of them, in order; ``keys`` and ``allowed``: files.

    ``parameters``: those that batches may have, as ``upx_protocol.terms`` reads them.
    """

    name: str
    ports: tuple[int, ...]
    keys: Path
    allowed: Path
    models: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    log_json: bool = False


class ServedWorker:
    """``poll`` from the one thread that lives as long as the box: the kernel ends workers with it."""

    def __init__(
        self,
        plan: WorkerPlan,
        facts: Facts,
        keeper: Keeper,
        settings: Settings,
        *,
        listener: socket.socket,
        number: int,
    ) -> None:
        self.plan, self._facts, self._keeper, self._settings = plan, facts, keeper, settings
        self._listener, self._number = listener, number
        self._process: process.Process | None = None
        self._entry: Path | None = None
        self._born = self._not_before = 0.0
        self._pause = BACKOFF_S
        # It ended well, and not by our wish: whoever asked it to wants the box to end.
        self.finished = False
        self.starts = 0
        self.draining = False

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._facts.ports[self._number]

    @property
    def info(self) -> registry.WorkerInfo | None:
        """Its registry entry, once it has bound."""
        found = registry.read(self._entry) if self._entry is not None else None
        return found if found is not None and found.alive and not found.starting else None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.starts - 1)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def pidfd(self) -> int:
        """What can be read once its process has ended; -1 where there is none, or the system has no such thing."""
        return self._process.pidfd if self._process is not None else -1

    def due(self, now: float) -> float:
        """Seconds until ``poll`` may start it; endless where only something that happens gives it work."""
        return max(0.0, self._not_before - now) if self._process is None and not self.finished else float("inf")

    def poll(self, now: float, *, restart: bool) -> None:
        """Notice its end; start it again when it is time, if it is to be, as often as it takes."""
        if self._process is not None and (words := self._process.ended()):
            self._mourn(words, now)
        if restart and self._process is None and not self.finished and now >= self._not_before:
            self._try(now)

    def _try(self, now: float) -> None:
        """Start it, or later: what one device lacks for a moment must not end the others."""
        try:
            self.start(now)
        except WorkerStartError as error:
            self._pause = min(2 * self._pause, MOST_BACKOFF_S)
            self._not_before = time.monotonic() + self._pause
            log.error("port %d has no worker: %s; again in %.1f s", self.port, said(error), self._pause)  # noqa: TRY400

    def _mourn(self, words: str, now: float) -> None:
        ended, self._process = self._process, None
        status = ended.status if ended is not None else None
        if ended is not None:
            ended.release()
        self._pause = BACKOFF_S if now - self._born > GOOD_S else min(2 * self._pause, MOST_BACKOFF_S)
        if status == 0 and not self.draining:
            self.finished = True
            log.info("the worker on port %d was ended", self.port)
        elif not self.draining:
            last = faults.last_line(ended.log if ended is not None else None)
            log.error("the worker on port %d ended with %s%s; again in %.1f s", self.port, words, last, self._pause)
            self._not_before = now + self._pause
        self.draining = False

    def start(self, now: float) -> None:
        """Start it; WorkerStartError where that cannot be, and then nothing of the try is left."""
        try:
            with ExitStack() as undo:
                born = self._start(undo)
                undo.pop_all()
        except (OSError, MemoryError, RuntimeError) as error:
            # A thread that cannot be had is a RuntimeError.
            raise WorkerStartError(
                f"no worker of {self.plan.backend} can be started: {error}",
                hint=f"check memory, and space and permissions of {self._settings.state_dir}",
            ) from error
        self._born, self._process, self._entry = now, born.process, born.entry
        self.starts += 1
        log.info("a worker of %s on %s: process %d", self.plan.backend, self.plan.device, born.process.pid)

    def _start(self, undo: ExitStack) -> birth.Born:
        lines: dict[str, Line | TakingLine] = {"steward_fd": Line(self._keeper, self.plan.device)}
        undo.callback(lines["steward_fd"].close)
        if self._keeper.taking is not None:
            lines["files_fd"] = TakingLine(self._keeper.taking)
            undo.callback(lines["files_fd"].close)
        born = self._bear({name: line.theirs.fileno() for name, line in lines.items()})
        undo.callback(_bury, born)
        for line in lines.values():
            line.start()
        return born

    def _bear(self, lines: dict[str, int]) -> birth.Born:
        until = time.monotonic() + LOCK_S
        while time.monotonic() < until:
            with registry.spawn_lock(self._settings, self.plan.identity) as held:
                if held:
                    living = registry.entries(self._settings, self.plan.identity)
                    fds = {"listen_fd": self._listener.fileno(), **lines}
                    return birth.bear(self.plan, self._settings, living, self._options(), fds)
            time.sleep(0.02)
        raise WorkerStartError("the registry is held by another command", hint="end upx commands that hang")

    def _options(self) -> WorkerOptions:
        plan, facts, host = self.plan, self._facts, self._listener.getsockname()[0]
        ports = (self.port, *(port for port in facts.ports if port != self.port))
        return WorkerOptions(
            backend=plan.backend,
            module=plan.module,
            endpoint=f"tcp://[{host}]:{self.port}" if ":" in host else f"tcp://{host}:{self.port}",
            identity=plan.identity,
            parent=os.getpid(),
            tied=False,
            device=plan.device,
            env=plan.env,
            build=plan.build,
            curve_keys=str(facts.keys),
            credit_tiles=CREDIT_TILES,
            credit_bytes=CREDIT_BYTES,
            max_bytes=MAX_BYTES,
            log_json=facts.log_json,
            allowed=str(facts.allowed),
            box=facts.name,
            ports=ports,
            models=facts.models,
            parameters=facts.parameters,
            silence_s=SILENCE_S,
        )

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            self._process.signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()


def _bury(born: birth.Born) -> None:
    """End one whose questions nobody can answer, and collect it."""
    born.process.kill()
    if born.process.child is not None:
        with suppress(subprocess.TimeoutExpired):
            born.process.child.wait(BURY_S)
    born.process.release()
    born.entry.unlink(missing_ok=True)
