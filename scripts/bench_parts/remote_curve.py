"""What CURVE carries over a link: a bare pyzmq loop that keeps so many tiles under way, one part a tile.

Run as a script it is the other side: ``ENDPOINT PUBLIC SECRET SCALE COPY`` as arguments.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import zmq
from measure import PYTHON

if TYPE_CHECKING:
    import numpy as np
    from lab import Box, Lab

PORT = 7690
# More than a round trip of the longest link holds.
UNDER_WAY = 8
PATIENCE_MS = 30_000


def rate(lab: Lab, box: Box, tile: np.ndarray, scale: int, count: int) -> float:
    """Tiles a second there and their results back, by the quicker of sending copies and what lies there."""
    return max(_rate(lab, box, tile, scale, count, copy=copy) for copy in (False, True))


def _rate(lab: Lab, box: Box, tile: np.ndarray, scale: int, count: int, *, copy: bool) -> float:
    public, secret = map(bytes.decode, zmq.curve_keypair())
    endpoint = f"tcp://{box.address}:{PORT}"
    command = [PYTHON, __file__, endpoint, public, secret, scale, int(copy)]
    with box.popen(command, stdout=subprocess.PIPE, text=True) as far, lab.enter_host():
        try:
            far.stdout.readline()
            return _client(endpoint, public, tile, count, copy=copy)
        finally:
            far.kill()


def _client(endpoint: str, public: str, tile: np.ndarray, count: int, *, copy: bool) -> float:
    with zmq.Context() as context, context.socket(zmq.DEALER) as near:
        near.linger, near.rcvtimeo = 0, PATIENCE_MS
        near.curve_serverkey = public.encode()
        near.curve_publickey, near.curve_secretkey = zmq.curve_keypair()
        near.connect(endpoint)

        def turn() -> None:
            near.recv_multipart(copy=False)
            near.send_multipart([b"header", tile], copy=copy)

        for _ in range(UNDER_WAY):
            near.send_multipart([b"header", tile], copy=copy)
        for _ in range(UNDER_WAY):
            turn()  # the connection is there, and TCP has learned what it may send
        begin = time.perf_counter()
        for _ in range(count):
            turn()
        return count / (time.perf_counter() - begin)


def main(endpoint: str, public: str, secret: str, scale: str, copy: str) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.curve_server, socket.curve_publickey, socket.curve_secretkey = True, public.encode(), secret.encode()
    socket.bind(endpoint)
    print("ready", flush=True)
    held = b""
    while True:
        peer, header, tile = socket.recv_multipart(copy=False)
        size = len(tile) * int(scale) ** 2
        held = held if len(held) == size else bytes(tile.buffer) * int(scale) ** 2
        socket.send_multipart([peer, header, held], copy=bool(int(copy)))


if __name__ == "__main__":
    main(*sys.argv[1:])
