"""What a worker's socket holds at most, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq

if TYPE_CHECKING:
    from upx_protocol.options import WorkerOptions

#: How long what was sent may take to go out when a worker leaves.
LINGER_MS = 1_000


def limit(router: zmq.Socket[bytes], options: WorkerOptions) -> None:
    """Set a socket's limits, before it binds."""
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.LINGER, LINGER_MS)
    # Credit comes back when a result is handed to the connection: this bounds what a slow reader may hold.
    router.setsockopt(zmq.SNDHWM, 16 if options.serves else 4 * options.credit_tiles + 16)
    router.setsockopt(zmq.RCVHWM, 4 * options.credit_tiles + 16)
    router.setsockopt(zmq.MAXMSGSIZE, options.max_bytes)
