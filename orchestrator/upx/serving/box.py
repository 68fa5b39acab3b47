"""The box: one supervising process, one worker a device, until it is told to end.

SIGTERM, SIGINT    the workers finish within three seconds, then the box ends
SIGHUP             each worker in turn finishes what it has and is started anew, with the code and the keys of now
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from upx.errors import UpxError, UsageError, WorkerError
from upx.remote.keys import KeyRing
from upx.serving.addresses import listen
from upx.serving.waiting import Bell
from upx.serving.worker import Facts, ServedWorker
from upx.workers import control

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from upx.config import Settings
    from upx.serving.addresses import Address
    from upx.serving.keeper import Keeper
    from upx.specs import BackendSpec, ParameterSpec
    from upx.workers.plan import WorkerPlan
    from upx.workers.registry import WorkerInfo

log = logging.getLogger("upx.serve")

# How often is looked where nothing tells of a process's end, and where everything does.
POLL_S, IDLE_S = 0.1, 1.0
END_S, KILL_S = 6.0, 5.0
BIND_S = 60.0
DRAIN_S = 600.0


class BoxServer:
    """``plans``: one a device, in the order of the ports. ``run`` blocks. Main thread only, which gets the signals."""

    def __init__(
        self,
        name: str,
        spec: BackendSpec,
        plans: Callable[[], Sequence[WorkerPlan]],
        settings: Settings,
        *,
        address: Address,
        keeper: Keeper,
        log_json: bool = False,
    ) -> None:
        self.name, self._spec, self._make_plans = name, spec, plans
        self._settings, self._address = settings, address
        self._keeper, self._log_json = keeper, log_json
        self.workers: list[ServedWorker] = []
        self._listeners: Sequence[socket.socket] = ()
        self._ending = threading.Event()
        self._renewing = threading.Event()
        self._renewer: threading.Thread | None = None
        self._handlers: dict[int, Any] = {}

    def start(self) -> tuple[int, ...]:
        """Listen and start the workers; the ports. UsageError where nobody could enter, WorkerStartError."""
        keys = KeyRing(self._settings)
        if not self._address.loopback and not keys.allowed():
            raise UsageError(
                "nobody is allowed to use this machine yet",
                hint="upx key show on the client; upx key allow NAME KEY here; or listen at tcp://127.0.0.1:PORT",
            )
        plans = self._make_plans()
        self._listeners = listen(self._address, len(plans))
        ports = tuple(each.getsockname()[1] for each in self._listeners)
        models = tuple(model.name for model in self._spec.models)
        parameters = {each.name: _limits(each) for each in self._spec.parameters if each.applies == "job"}
        facts = Facts(self.name, ports, keys.worker_file(), keys.list_path, models, parameters, self._log_json)
        self.workers = [
            ServedWorker(plan, facts, self._keeper, self._settings, listener=listener, number=number)
            for number, (plan, listener) in enumerate(zip(plans, self._listeners, strict=True))
        ]
        # Before anybody can see that it serves: a signal that comes early ends it as one that comes late.
        self._handlers = {number: signal.signal(number, self._told) for number in _signals()}
        try:
            for each in self.workers:
                each.start(time.monotonic())
        except BaseException:
            self._end()
            raise
        where = ", ".join(self._address.endpoint(port) for port in ports)
        log.info("%s serves %s at %s; its key is %s", self.name, self._spec.name, where, keys.public("server"))
        return ports

    def run(self) -> int:
        """Keep the workers alive until the end; the exit status."""
        try:
            with Bell() as bell:
                while not self._ending.is_set():
                    self._turn()
                    if all(each.finished and not each.running for each in self.workers):
                        break
                    self._wait(bell)
        finally:
            self._end()
        return 0

    def _wait(self, bell: Bell) -> None:
        """Until a signal comes, a worker ends, or one is to be started."""
        now = time.monotonic()
        running = [each for each in self.workers if each.running]
        pidfds = [each.pidfd for each in running if each.pidfd >= 0]
        most = IDLE_S if len(pidfds) == len(running) else POLL_S
        bell.wait(pidfds, min([most, *(each.due(now) for each in self.workers)]))

    def _told(self, number: int, _frame: Any) -> None:
        (self._renewing if number == getattr(signal, "SIGHUP", None) else self._ending).set()

    def _turn(self) -> None:
        now = time.monotonic()
        for each in self.workers:
            each.poll(now, restart=True)
        if self._renewing.is_set() and self._renewer is None:
            self._renewing.clear()
            self._renew()
        if self._renewer is not None and not self._renewer.is_alive():
            self._renewer = None

    def _renew(self) -> None:
        """Give every worker the plan and the keys of now, and drain one after the other; ``poll`` starts each again."""
        try:
            plans = self._make_plans()
            KeyRing(self._settings).worker_file()
        except (UpxError, OSError) as error:
            log.error("the workers stay as they are: %s", error)  # noqa: TRY400  said in one line
            return
        log.info("restarting the workers, one by one")
        for each, plan in zip(self.workers, plans, strict=True):
            each.plan = plan
        self._renewer = threading.Thread(target=self._drain_each, name="upx-renew", daemon=True)
        self._renewer.start()

    def _drain_each(self) -> None:
        for each in self.workers:
            info = self._await_bound(each)
            if info is None:
                continue
            if not self._drain(each, info):
                return
            # The next one goes when this one serves again: one device at a time is missing.
            if self._await_bound(each, after=info.pid) is None and not self._ending.is_set():
                log.error("the worker on port %d has not come back: the others stay as they are", each.port)
                return

    def _drain(self, worker: ServedWorker, info: WorkerInfo) -> bool:
        """Have one finish what it has and end; False where it cannot be told to."""
        worker.draining = True
        try:
            how = control.end_worker(info, self._settings, force=False, timeout=DRAIN_S).how
        except (UpxError, OSError) as error:
            log.error("the worker on port %d cannot be drained: the others stay as they are: %s", worker.port, error)  # noqa: TRY400  said in one line
            # If it goes on, its end will be news; if not, it is to be started again.
            worker.draining = worker.info is None
            return False
        if how == "gone":
            # Its successor may run by now, whose end is news too, unless the box ends.
            worker.draining = self._ending.is_set()
        return True

    def _await_bound(self, worker: ServedWorker, *, after: int = 0) -> WorkerInfo | None:
        """Its entry once it has bound, by another process than ``after``; None where the box ends, or a minute passes.

        One that only just starts is waited for as well: it may have been given the code of before.
        """
        until = time.monotonic() + BIND_S
        while time.monotonic() < until and not self._ending.is_set():
            info = worker.info
            if info is not None and info.pid != after:
                return info
            self._ending.wait(POLL_S)
        return None

    def _end(self) -> None:
        self._ending.set()
        for each in self.workers:
            each.draining = True
            each.signal(signal.SIGTERM)
        self._await_end(END_S)
        for each in self.workers:
            each.kill()
        # Gigabytes, and a GPU's, take their time to be given back.
        self._await_end(KILL_S)
        for listener in self._listeners:
            listener.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if any(each.running for each in self.workers):
            raise WorkerError("a worker does not end", hint="upx ps shows its process")

    def _await_end(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while any(each.running for each in self.workers) and time.monotonic() < until:
            for each in self.workers:
                each.poll(time.monotonic(), restart=False)
            time.sleep(0.02)


def _limits(parameter: ParameterSpec) -> dict[str, Any]:
    """What a worker lets hosts of other machines say for a parameter of batches."""
    return {
        "kind": parameter.kind,
        "default": parameter.default,
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "choices": parameter.choices,
    }


def _signals() -> tuple[int, ...]:
    hangup = getattr(signal, "SIGHUP", None)
    return (signal.SIGTERM, signal.SIGINT, *([hangup] if hangup is not None else []))
