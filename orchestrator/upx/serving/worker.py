"""One worker of a box: started, watched, restarted when it dies, drained when it is to be another."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx import locks
from upx.errors import WorkerStartError
from upx.serving.keeper import Keeper, Line
from upx.serving.taking import TakingLine
from upx.workers import faults, process, registry
from upx.workers import stage as stages
from upx.workers.logs import open_log
from upx_protocol.options import WorkerOptions

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from upx.config import Settings
    from upx.workers.plan import WorkerPlan

log = logging.getLogger("upx.serve")

BACKOFF_S, MOST_BACKOFF_S = 0.2, 30.0
# A worker that lived so long had a good start.
GOOD_S = 60.0
CREDIT_TILES, CREDIT_BYTES, MAX_BYTES = 32, 128 * 1024 * 1024, 256 * 1024 * 1024
SILENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What all workers of a box share. ``ports``: of all of them, in order; ``keys`` and ``allowed``: files.

    ``forbidden``: parameters of batches that hosts of other machines may not set.
    """

    name: str
    ports: tuple[int, ...]
    keys: Path
    allowed: Path
    models: tuple[str, ...]
    forbidden: tuple[str, ...] = ()
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
        return found if found is not None and not found.starting else None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.starts - 1)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def poll(self, now: float, *, restart: bool) -> None:
        """Notice its end; start it again when it is time, if it is to be."""
        if self._process is not None and (words := self._process.ended()):
            self._mourn(words, now)
        if self._process is None and restart and not self.finished and now >= self._not_before:
            self.start(now)

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
            said = faults.last_line(ended.log if ended is not None else None)
            log.error("the worker on port %d ended with %s%s; again in %.1f s", self.port, words, said, self._pause)
            self._not_before = now + self._pause
        self.draining = False

    def start(self, now: float) -> None:
        """Start it; WorkerStartError where that cannot be."""
        self._born = now
        lines: dict[str, Line | TakingLine] = {"steward_fd": Line(self._keeper, self.plan.device)}
        if self._keeper.taking is not None:
            lines["files_fd"] = TakingLine(self._keeper.taking)
        try:
            self._process = self._spawn({name: line.theirs.fileno() for name, line in lines.items()})
        except OSError as error:
            for line in lines.values():
                line.close()
            raise WorkerStartError(f"{self.plan.python} cannot be run: {error}", hint="upx doctor") from error
        for line in lines.values():
            line.start()
        self.starts += 1
        log.info("a worker of %s on %s: process %d", self.plan.backend, self.plan.device, self._process.pid)

    def _spawn(self, lines: dict[str, int]) -> process.Process:
        plan, identity = self.plan, self.plan.identity
        with ExitStack() as stack:
            lock_fd, self._entry = self._register(identity)
            stack.callback(os.close, lock_fd)
            log_fd, words = open_log(self._settings.state_dir / "logs", registry.worker_name(plan.backend, identity, 0))
            stack.callback(os.close, log_fd)
            read_end, tie = os.pipe()
            stack.callback(os.close, read_end)
            fds = {"lock_fd": lock_fd, "tie_fd": read_end, "listen_fd": self._listener.fileno(), **lines}
            for key, held in (("stage_fd", stages.hold(plan.stage)), ("env_fd", self._hold_env())):
                if held >= 0:
                    stack.callback(os.close, held)
                    fds[key] = held
            try:
                return process.spawn(
                    plan, self._options(fds).to_json(), fds=tuple(fds.values()), tie=tie, log=words, log_fd=log_fd
                )
            except OSError:
                os.close(tie)
                raise

    def _hold_env(self) -> int:
        """The shared lock of its environment, so that nobody prunes it; -1 where it is being changed."""
        if self.plan.env_lock is None:
            return -1
        fd = locks.open_lock(self.plan.env_lock, shared=True)
        if locks.take(fd, shared=True):
            return fd
        os.close(fd)
        return -1

    def _register(self, identity: str) -> tuple[int, Path]:
        """A registry entry under a number that is free."""
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            with registry.spawn_lock(self._settings, identity) as held:
                if held:
                    taken = {info.ordinal for info in registry.entries(self._settings, identity)}
                    number = next(each for each in range(len(taken) + 1) if each not in taken)
                    endpoint = self._options({}).endpoint
                    return registry.create(
                        self._settings, identity, number, backend=self.plan.backend, endpoint=endpoint, tied=True
                    )
            time.sleep(0.02)
        raise WorkerStartError("the registry is held by another command", hint="end upx commands that hang")

    def _options(self, fds: dict[str, int]) -> WorkerOptions:
        plan, facts, host = self.plan, self._facts, self._listener.getsockname()[0]
        ports = (self.port, *(port for port in facts.ports if port != self.port))
        return WorkerOptions(
            backend=plan.backend,
            module=plan.module,
            endpoint=f"tcp://[{host}]:{self.port}" if ":" in host else f"tcp://{host}:{self.port}",
            entry=str(self._entry or ""),
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
            forbidden=facts.forbidden,
            silence_s=SILENCE_S,
            lock_fd=fds.get("lock_fd", -1),
            stage_fd=fds.get("stage_fd", -1),
            env_fd=fds.get("env_fd", -1),
            tie_fd=fds.get("tie_fd", -1),
            listen_fd=fds.get("listen_fd", -1),
            steward_fd=fds.get("steward_fd", -1),
            files_fd=fds.get("files_fd", -1),
        )

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            self._process.signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
