"""What CURVE itself costs: a bare pyzmq loop over the loopback, one part a tile, nothing decided, checked or survived.

Run as a script it is the other side: ``ENDPOINT PUBLIC SECRET`` as arguments, results made once and sent as they lie.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import zmq
from measure import PYTHON

if TYPE_CHECKING:
    from transport_trips import Tiles

SCALE = 4


class RawCurve:
    """The quickest loop that pyzmq allows for: DEALER to ROUTER; ``copy`` as in ``send``."""

    def __init__(self, *, copy: bool) -> None:
        public, secret = zmq.curve_keypair()
        self._context, self._copy = zmq.Context(), copy
        self._child = subprocess.Popen(
            [PYTHON, __file__, public, secret, str(int(copy))], stdout=subprocess.PIPE, text=True
        )
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.curve_serverkey = public
        self._socket.curve_publickey, self._socket.curve_secretkey = zmq.curve_keypair()
        self._socket.connect(self._child.stdout.readline().strip())

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
        self._child.kill()
        self._child.wait()
        self._child.stdout.close()

    def trips(self, tiles: Tiles, count: int) -> tuple[list[float], float]:
        from transport_trips import timed

        return timed(lambda: self._trip(tiles), tiles, count, [self._child.pid])

    def _trip(self, tiles: Tiles) -> None:
        self._socket.send_multipart([b"header", *tiles.tiles], copy=self._copy)
        for index, frame in enumerate(self._socket.recv_multipart(copy=False)[1:]):
            side = tiles.side * SCALE
            tiles.check(index, np.frombuffer(frame.buffer, np.uint8).reshape(side, side, 3))


def main(public: str, secret: str, copy: str) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.curve_server, socket.curve_publickey, socket.curve_secretkey = True, public.encode(), secret.encode()
    socket.bind("tcp://127.0.0.1:*")
    print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    held: dict[tuple[int, int], list[np.ndarray]] = {}
    host = os.getppid()
    while os.getppid() == host:
        if not socket.poll(1000):
            continue
        peer, header, *parts = socket.recv_multipart(copy=False)
        size = SCALE * SCALE * len(parts[0])
        key = (len(parts), size)
        if key not in held:
            rng = np.random.default_rng(0)
            held[key] = [rng.integers(0, 256, size, np.uint8) for _ in parts]
        for part, result in zip(parts, held[key], strict=True):
            pixels = np.frombuffer(part.buffer, np.uint8)
            result[0], result[-3:] = pixels[0], pixels[-3:]
        socket.send_multipart([peer, header, *held[key]], copy=bool(int(copy)))


if __name__ == "__main__":
    main(*sys.argv[1:])
