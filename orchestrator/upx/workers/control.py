"""End workers that the user, or a shortage of memory, wants ended: drain, cancel, SIGTERM, SIGKILL, in that order."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.errors import UsageError
from upx.workers import channel, endpoints, process, registry
from upx_protocol.messages import Bye, Drain, Drained, Hello, Message, Welcome
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upx.config import Settings
    from upx.workers.registry import WorkerInfo

How: TypeAlias = Literal["drained", "terminated", "killed", "draining", "gone"]
HELLO_S = 2.0
# A worker that was sent SIGTERM drops what it computes after 3 s.
TERM_S = 4.0
KILL_S = 5.0
BIND_S = 10.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """What happened to one worker. ``draining``: it still finishes its hosts' tiles."""

    worker: WorkerInfo
    how: How

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.how != "draining"


def stop(settings: Settings, selector: str = "all", *, force: bool = False, timeout: float = 30.0) -> list[Stopped]:
    """End the workers that ``selector`` means: "all", or a name, pid, backend, model or device.

    Without ``force`` a worker finishes what its hosts sent, for ``timeout`` seconds at most, and one that does not
    answer is ended by signals; with it none is waited for. UsageError where no worker fits.
    """
    workers = registry.list_workers(settings)
    chosen = [info for info in workers if selector == "all" or selector in _names(info)]
    if not chosen and selector != "all":
        known = ", ".join(info.name for info in workers) or "none runs"
        raise UsageError(f"no worker is called {selector!r}", hint=f"upx ps lists them: {known}")
    if not chosen:
        return []
    end = partial(end_worker, settings=settings, force=force, timeout=timeout)
    with ThreadPoolExecutor(len(chosen), "upx-stop") as threads:
        return list(threads.map(end, chosen))


def _names(info: WorkerInfo) -> set[str]:
    return {info.name, str(info.pid), info.backend, info.model, info.device}


def end_worker(info: WorkerInfo, settings: Settings, *, force: bool, timeout: float) -> Stopped:
    """End one worker; see ``stop``."""
    info = _bound(info)
    held = process.adopt(info.pid, info.start_ticks)
    if held is None or not registry.is_its(info):
        if held is not None:
            held.release()
        return Stopped(info, "gone")
    try:
        how = _end(info, held, settings, force=force, timeout=timeout)
    finally:
        held.release()
    if how != "draining":
        registry.discard(info)
    return Stopped(info, how)


def _bound(info: WorkerInfo) -> WorkerInfo:
    """The worker once it has bound: one that is starting has no pid yet that anybody could hold."""
    until = time.monotonic() + BIND_S
    while info.starting and info.alive and time.monotonic() < until:
        time.sleep(0.02)
        info = registry.read(info.path) or replace(info, alive=False)
    return info


def _end(info: WorkerInfo, held: process.Process, settings: Settings, *, force: bool, timeout: float) -> How:
    if not force:
        answered = _drain(info, held, settings, timeout=timeout)
        if held.ended():
            return "drained"
        if answered:
            return "draining"
    # Nobody is to find it any more, and whoever uses it sees that it is ended by intent.
    if registry.is_its(info):
        info.path.unlink(missing_ok=True)
    held.signal(signal.SIGTERM)
    if _ends(held, TERM_S):
        return "terminated"
    held.kill()
    return "killed" if _ends(held, KILL_S) else "draining"


def _ends(held: process.Process, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not held.ended():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _drain(info: WorkerInfo, held: process.Process, settings: Settings, *, timeout: float) -> bool:
    """Ask it to drain and wait for its end; False where it does not even answer."""
    keys = None
    if info.endpoint.startswith("tcp:"):
        keys = endpoints.client_keys(settings, info.curve_public, channel.new_key_pair)
    with ExitStack() as stack:
        hub = stack.enter_context(closing(channel.Hub()))
        link = stack.enter_context(closing(hub.connect(info.endpoint, server_key=info.curve_public, keys=keys)))
        link.send(Hello(1, OLDEST, NEWEST, host="upx stop"))
        until = time.monotonic() + HELLO_S
        welcome = next((m for m in _messages(hub, link, held, until) if isinstance(m, Welcome)), None)
        if welcome is None:
            return False
        link.send(Drain(2), session=welcome.session)
        until = time.monotonic() + timeout
        for message in _messages(hub, link, held, until):
            if isinstance(message, (Drained, Bye)):
                return _ends(held, TERM_S)
        return not link.gone or _ends(held, TERM_S)


def _messages(
    hub: channel.Hub, link: channel.Channel, held: process.Process, until: float
) -> Iterator[Message | object]:
    """What the worker says until it ends, is gone, or the time is up."""
    while time.monotonic() < until and not held.ended():
        hub.wait(min(0.05, until - time.monotonic()))
        gone = link.gone
        for received in link.receive():
            yield getattr(received, "message", received)
        if gone:
            return
