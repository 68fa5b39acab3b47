"""A host for tests: one DEALER that speaks to a worker step by step, with a deadline on every wait."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, cast

import zmq

from upx_protocol import ring
from upx_protocol.arrays import Bytes, view
from upx_protocol.codec import Received, decode, encode
from upx_protocol.messages import (
    Failed,
    Hello,
    Load,
    Loaded,
    Mapped,
    Message,
    Reject,
    Ring,
    Scalar,
    TileDone,
    Upscale,
    Welcome,
)
from upx_protocol.pipe import create
from upx_protocol.version import NEWEST, OLDEST, Version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_protocol.packing import Piece
    from upx_protocol.pipe import Pipe
    from upx_protocol.ring import Memory


M = TypeVar("M", bound=Message)


class FakeHost:
    """One DEALER. ``timeout``: seconds that any wait may take; TimeoutError when nothing (fitting) came.

    ``curve``: the worker's public key, and the host's own key pair, for a worker on tcp.
    """

    def __init__(self, endpoint: str, *, timeout: float = 5.0, curve: Optional[Tuple[str, str, str]] = None) -> None:
        self.timeout = timeout
        self.session = ""
        self.load_id = ""
        #: Where ``share`` was asked for one, and the worker has opened it.
        self.pipe: Optional[Pipe] = None
        #: What ``expect`` passed over, newest last.
        self.skipped: List[Received] = []
        self._numbers = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if curve is not None:
            names = (zmq.CURVE_SERVERKEY, zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY)
            for name, key in zip(names, curve):  # noqa: B905  strict is Python 3.10's
                self.socket.setsockopt(name, key.encode())
        self.socket.connect(endpoint)

    def __enter__(self) -> FakeHost:  # noqa: PYI034  Self is Python 3.11's
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket, without a goodbye."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None
        self.socket.close()
        self._context.term()

    def number(self) -> int:
        """An id that was not used before."""
        self._numbers += 1
        return self._numbers

    def send(self, message: Message, *, arrays: Sequence[Piece] = (), session: Optional[str] = None) -> None:
        """Send a message, in the open session if no other is named."""
        self.send_raw(encode(message, session=self.session if session is None else session, arrays=arrays))

    def send_raw(self, parts: Sequence[Bytes]) -> None:
        """Send any parts; TimeoutError when the worker's queue stays full, or the worker does not let us in."""
        until = time.monotonic() + self.timeout
        while self.socket.poll(max(0, int((until - time.monotonic()) * 1000)), zmq.POLLOUT):
            try:
                self.socket.send_multipart(list(parts), zmq.NOBLOCK)
            except zmq.Again:
                # A refused handshake takes the queue away, which may fall between the question and the sending.
                continue
            return
        raise TimeoutError("the worker takes nothing")

    def receive(self, timeout: Optional[float] = None) -> Received:
        """The next message, whatever it is."""
        seconds = self.timeout if timeout is None else timeout
        if not self.socket.poll(max(0, int(seconds * 1000))):
            raise TimeoutError(f"nothing came in {seconds:.1f} s; before: {self.skipped[-5:]}")
        return decode(self.socket.recv_multipart(zmq.NOBLOCK))

    def expect(self, kind: Type[M], timeout: Optional[float] = None) -> M:
        """The next message of a kind; others are put on ``skipped``."""
        return cast("M", self.expect_received(kind, timeout).message)

    def expect_received(self, kind: Type[Message], timeout: Optional[float] = None) -> Received:
        """As ``expect``, with the buffers."""
        until = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            received = self.receive(until - time.monotonic())
            if isinstance(received.message, kind):
                return received
            self.skipped.append(received)

    def hello(
        self,
        *,
        oldest: Version = OLDEST,
        newest: Version = NEWEST,
        env: str = "",
        build: str = "",
        features: Tuple[str, ...] = (),
    ) -> Welcome:
        """Open a session and wait for ``Welcome``."""
        self.send(Hello(self.number(), oldest, newest, features, "test", env, build), session="")
        welcome = self.expect(Welcome)
        self.session = welcome.session
        return welcome

    def share(self, size: int, *, piped: bool = False) -> Memory:
        """Make a ring, offer it, and wait until it is mapped; AssertionError when it is refused.

        ``piped``: with pipes, of which ``pipe`` is this side from then on; what comes through it is not in ``receive``.
        """
        fd, (pipe, ends) = ring.create(size), create() if piped else (None, None)
        try:
            memory = ring.Memory(fd, size)
            found, fields = os.fstat(fd), ends.fields() if ends is not None else {}
            self.send(Ring(self.number(), os.getpid(), fd, found.st_dev, found.st_ino, size, **fields))
            mapped = self.expect(Mapped)
        finally:
            os.close(fd)
            if ends is not None:
                ends.close()
        if not mapped.ok or mapped.pipes != piped:
            raise AssertionError(mapped)
        self.pipe = pipe
        return memory

    def load(
        self, model: str, *, key: str = "key", files: Optional[Mapping[str, str]] = None, **params: Scalar
    ) -> Loaded:
        """Load a model and wait for ``Loaded``."""
        self.send(Load(self.number(), key, model, files=files or {}, params=params))
        loaded = self.expect(Loaded)
        self.load_id = loaded.load_id
        return loaded

    def submit(
        self, tiles: Sequence[NDArray[Any]], *, out_dtype: str = "uint8", attempt: int = 0, **params: Scalar
    ) -> int:
        """Send a batch; its id."""
        return self._submit(tiles, out_dtype, attempt, params)

    def _submit(self, tiles: Sequence[NDArray[Any]], out_dtype: str, attempt: int, params: Mapping[str, Scalar]) -> int:
        number = self.number()
        request = Upscale(number, attempt, self.load_id, (), out_dtype=out_dtype, params=params)
        self.send(request, arrays=tiles)
        return number

    def upscale(
        self, tiles: Sequence[NDArray[Any]], *, out_dtype: str = "uint8", **params: Scalar
    ) -> List[NDArray[Any]]:
        """Send a batch and wait for all of its tiles; a ``Failed`` or ``Reject`` ends in AssertionError."""
        number = self._submit(tiles, out_dtype, 0, params)
        results: Dict[int, NDArray[Any]] = {}
        until = time.monotonic() + self.timeout
        while len(results) < len(tiles):
            received = self.receive(until - time.monotonic())
            message = received.message
            if isinstance(message, TileDone) and message.id == number:
                results[message.index] = view(message.bufs[0], received.buffers[0])
            elif isinstance(message, (Failed, Reject)):
                raise AssertionError(message)
            else:
                self.skipped.append(received)
        return [results[index] for index in range(len(tiles))]
