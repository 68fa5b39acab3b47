"""Find or start one worker: under the identity's lock adopt one that runs, else spawn; then wait until it has bound.

Polled by the I/O thread; no call waits for anything.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.errors import WorkerStartError
from upx.workers import birth, channel, control, endpoints, faults, machine, process, registry
from upx.workers.events import Event, WorkerAdopted, WorkerEvicted, WorkerStarting
from upx_protocol.options import WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upx.config import Settings
    from upx.workers.endpoints import ClientKeys, Transport
    from upx.workers.plan import Timeouts, WorkerPlan
    from upx.workers.registry import WorkerInfo

# One computes, one waits, for batches of a few tiles each.
CREDIT_TILES = 64


@dataclass(frozen=True, slots=True)
class Found:
    """A worker that has bound. ``keys``: what this host shows to it where its endpoint is tcp.

    ``info``: its registry entry; None on another machine.
    """

    name: str
    endpoint: str
    curve_public: str
    process: process.Process
    adopted: bool
    keys: ClientKeys | None
    info: WorkerInfo | None = None

    @property
    def leaving(self) -> bool:
        """Whether nobody can find it any more; not known of another machine."""
        return self.info is not None and not registry.present(self.info.path, self.info.inode)


class Launch:
    """One search. ``taken`` is shared by a pool's launches: workers (path, nonce) that it uses or found unusable."""

    def __init__(
        self,
        plan: WorkerPlan,
        settings: Settings,
        *,
        transport: Transport,
        timeouts: Timeouts,
        taken: set[tuple[Path, int]],
        report: Callable[[Event], None],
    ) -> None:
        self._plan, self._settings = plan, settings
        self._transport: Transport = transport
        self._timeouts, self._taken, self._report = timeouts, taken, report
        self._deadline = 0.0
        self.entry: WorkerInfo | None = None
        self._eviction: threading.Thread | None = None
        self.process: process.Process | None = None
        # As soon as may be: others end, bind and let go of the lock without a word.
        self.due = 0.0

    def again(self) -> None:
        """What was found is of no use: look for another, and never take that one again."""
        self.give_back()
        self.entry, self._deadline = None, 0.0

    def bury(self, bound: WorkerInfo | None) -> None:
        """What was found is dead: sweep after it. A later entry may have its name and inode."""
        if self.entry is not None:
            self._taken.discard((self.entry.path, self.entry.nonce))
            registry.discard(bound or self.entry)

    def poll(self, now: float) -> Found | None:
        """One step; the worker once it has bound. WorkerStartError where none can be had."""
        self._deadline = self._deadline or now + self._timeouts.start
        try:
            if self.entry is None:
                self._begin(now)
                return None
            return self._bound(self.entry, now)
        except OSError as error:
            where = error.filename or self._settings.state_dir
            raise WorkerStartError(
                f"no worker of {self._plan.backend} can be started: {where}: {error.strerror or error}",
                hint=f"check space and permissions of {self._settings.state_dir}",
            ) from error

    def patient(self, now: float) -> bool:
        """Whether to look for another when the one that was found does not answer; here a new one is started."""
        del now
        return False

    def give_back(self) -> None:
        """Release the process if it was not handed over."""
        if self.process is not None:
            self.process.release()
            self.process = None

    # Choosing

    def _begin(self, now: float) -> None:
        if self._eviction is not None and self._eviction.is_alive():
            return
        with registry.spawn_lock(self._settings, self._plan.identity) as held:
            if not held:
                if now > self._deadline:
                    raise self._failed("another command has been starting it for too long")
                return
            living = registry.entries(self._settings, self._plan.identity)
            self.entry = self._adoptable(living)
            if self.entry is None and not self._make_room():
                self.entry = self._spawn(living)
        if self.entry is not None:
            self._taken.add((self.entry.path, self.entry.nonce))

    def _adoptable(self, living: list[WorkerInfo]) -> WorkerInfo | None:
        """The first detached worker that this pool has not; tied ones are somebody's own, and so are a tied pool's."""
        if self._plan.tied:
            return None
        free = (info for info in living if not info.tied and (info.path, info.nonce) not in self._taken)
        return next(free, None)

    def _make_room(self) -> bool:
        """Where memory is short, ask the worker that was idle for longest to leave; True while that is going on."""
        free = machine.available_memory()
        if not self._plan.memory or not self._plan.device.startswith("cpu") or not 0 < free < self._plan.memory:
            return False
        idle = [info for info in registry.list_workers(self._settings) if _evictable(info)]
        if not idle:
            return False
        oldest = max(idle, key=lambda info: info.idle)
        self._report(WorkerEvicted(oldest.name, oldest.backend))
        self._eviction = threading.Thread(target=self._evict, args=(oldest,), name="upx-evict", daemon=True)
        self._eviction.start()
        return True

    def _evict(self, info: WorkerInfo) -> None:
        control.end_worker(info, self._settings, force=False, timeout=self._timeouts.evict)

    # Starting

    def _spawn(self, living: list[WorkerInfo]) -> WorkerInfo:
        endpoint = endpoints.new_endpoint(self._settings, self._transport)
        born = birth.bear(self._plan, self._settings, living, self._options(endpoint))
        self.process = born.process
        self._report(WorkerStarting(born.name, born.process.pid))
        info = registry.read(born.entry)
        if info is None:
            raise self._failed("its registry entry vanished")
        return info

    def _options(self, endpoint: str) -> WorkerOptions:
        plan = self._plan
        keys = ""
        if endpoint.startswith("tcp:"):
            keys = str(endpoints.curve_keys(self._settings, channel.new_key_pair)[0])
        return WorkerOptions(
            backend=plan.backend,
            module=plan.module,
            endpoint=endpoint,
            identity=plan.identity,
            parent=os.getpid() if plan.tied else 0,
            tied=plan.tied,
            idle_s=plan.keep_alive,
            device=plan.device,
            env=plan.env,
            build=plan.build,
            curve_keys=keys,
            credit_tiles=CREDIT_TILES,
        )

    # Waiting

    def _bound(self, entry: WorkerInfo, now: float) -> Found | None:
        if self.process is not None and (words := self.process.ended()):
            raise self._failed(f"it ended with {words}{faults.last_line(self.process.log)}")
        info = registry.read(entry.path)
        gone = info is None or info.inode != entry.inode or not info.alive
        if gone and self.process is None:
            return self.again()
        if info is None or gone or info.starting:
            # One of ours whose entry is gone is about to end; then its exit status and last words are known.
            return self._vanished(f"it did not bind in {self._timeouts.start:g} s") if now > self._deadline else None
        adopted = self.process is None
        worker = self.process or process.adopt(info.pid, info.start_ticks)
        if worker is None:
            return self._vanished("it ended")
        self.process = None
        if adopted:
            self._report(WorkerAdopted(info.name, info.pid))
        keys = None
        if info.endpoint.startswith("tcp:"):
            keys = endpoints.curve_keys(self._settings, channel.new_key_pair)[1]
        return Found(info.name, info.endpoint, info.curve_public, worker, adopted, keys, info)

    def _vanished(self, reason: str) -> None:
        """Not ours: look on. Ours: it failed."""
        if self.process is None:
            self.again()
            return
        raise self._failed(reason)

    def _failed(self, reason: str) -> WorkerStartError:
        error = faults.start_failed(self._plan, reason, self.process.log if self.process is not None else None)
        return error if isinstance(error, WorkerStartError) else WorkerStartError(str(error), hint=error.hint)


def _evictable(info: WorkerInfo) -> bool:
    return not info.tied and not info.hosts and not info.starting
