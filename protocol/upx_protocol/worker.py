"""The worker process, wired: ``serve`` binds, imports the backend and computes until the worker is to leave."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from upx_protocol import logs
from upx_protocol.clerk import Clerk
from upx_protocol.compute import Compute
from upx_protocol.loop import Loop
from upx_protocol.steward import Steward
from upx_protocol.wake import Wake

if TYPE_CHECKING:
    from upx_protocol.options import WorkerOptions


def serve(options: WorkerOptions) -> int:
    """Serve until drained, idle, orphaned or told to go; the exit status. Call it from the main thread.

    The main thread computes, and listens while it has nothing to compute; a second one listens while it is busy.
    OSError and ``zmq.ZMQError`` when the endpoint cannot be bound.
    """
    _keep_private(options)
    wake = Wake()
    loop = Loop(options, wake)
    logs.configure(options.log_level, loop.report, as_json=options.log_json, serves=options.serves)
    loop.bind()
    wake.catch_signals()
    wake.watch_tie(options)
    if options.files_fd >= 0:
        loop.clerk = Clerk(options.files_fd, loop.report)
        loop.clerk.start()
    loop.start()
    steward = Steward(options.steward_fd) if options.steward_fd >= 0 else None
    Compute(options.module, options.device, loop.next_task, steward).run(loop.report)
    loop.compute_ended()
    loop.join()
    return loop.status


def _keep_private(options: WorkerOptions) -> None:
    """What a backend starts must not inherit our locks, or they outlive us."""
    if sys.platform == "win32":
        return
    for fd in options.descriptors:
        os.set_inheritable(fd, False)
