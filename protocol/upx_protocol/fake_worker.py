"""A worker for tests: repeats pixels, and can be told to truncate, delay, reorder, garble, stall or close early."""

from __future__ import annotations

import random
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np
import zmq

from upx_protocol.arrays import Bytes, to_dtype, to_float, view
from upx_protocol.codec import Received, decode, encode
from upx_protocol.errors import ProtocolError
from upx_protocol.messages import (
    Accepted,
    Bye,
    Cancel,
    Cancelled,
    Credit,
    Drain,
    Drained,
    Failed,
    Hello,
    Load,
    Loaded,
    Message,
    Ping,
    Pong,
    Ready,
    Reject,
    Started,
    TileDone,
    Unload,
    Upscale,
    Welcome,
)
from upx_protocol.version import NEWEST, OLDEST, Version, highest_common

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx_protocol.curve import CurveKeys

M = TypeVar("M", bound=Message)
#: Turns the parts of an answer into what is sent in their place; an empty list sends nothing.
Tamper = Callable[[Message, List[Bytes]], List[Bytes]]


@dataclass(frozen=True)
class Conduct:
    """How a ``FakeWorker`` behaves. Without arguments: well.

    ``versions``: the oldest and newest that it speaks; ``refuse``: a reason to reject every ``Hello``;
    ``delay``: seconds before each answer; ``reverse``: tiles of a batch in reverse order; ``failure``: the class
    of ``Failed`` for each batch; ``stall_after`` and ``close_after``: tiles after which it says nothing more, or
    closes its socket; ``forget_after``: tiles after which it knows no session any more; ``tamper`` changes parts.
    """

    versions: Tuple[Version, Version] = (OLDEST, NEWEST)
    refuse: str = ""
    delay: float = 0.0
    reverse: bool = False
    failure: str = ""
    stall_after: Optional[int] = None
    close_after: Optional[int] = None
    forget_after: Optional[int] = None
    tamper: Optional[Tamper] = None
    scale: int = 4
    credit_tiles: int = 4


def truncate_tiles(message: Message, parts: List[Bytes]) -> List[Bytes]:
    """A ``Tamper``: the last part of every tile's answer is cut short."""
    return [*parts[:-1], bytes(parts[-1])[:-1]] if isinstance(message, TileDone) else parts


def garble(seed: int, kinds: Tuple[Type[Message], ...] = (TileDone,)) -> Tamper:
    """A ``Tamper``: answers of these kinds have one bit of their header flipped."""
    rng = random.Random(seed)  # noqa: S311  repeatable, not secret

    def tamper(message: Message, parts: List[Bytes]) -> List[Bytes]:
        if not isinstance(message, kinds):
            return parts
        header = bytearray(parts[0])
        header[rng.randrange(len(header))] ^= 1 << rng.randrange(8)
        return [bytes(header), *parts[1:]]

    return tamper


class FakeWorker:
    """A ROUTER in a thread that repeats pixels ``conduct.scale`` times, as well or as badly as ``conduct`` says.

    ``heard``: every message that came, oldest first. ``curve`` makes it a CURVE server (without asking who comes).
    """

    def __init__(self, endpoint: str, conduct: Optional[Conduct] = None, *, curve: Optional[CurveKeys] = None) -> None:
        self.conduct = conduct or Conduct()
        self.heard: List[Message] = []
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._tiles = 0
        self._load = Loaded(0, "")
        self._sessions: Dict[bytes, str] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        if curve is not None:
            self._router.curve_server = True
            self._router.curve_publickey = curve.server_public.encode()
            self._router.curve_secretkey = curve.server_secret.encode()
        self._router.bind(endpoint)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="fake-worker")

    def __enter__(self) -> FakeWorker:  # noqa: PYI034  Self is Python 3.11's
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(10.0)
        self._router.close()
        self._context.term()

    def wait_for(self, kind: Type[M], *, count: int = 1, timeout: float = 5.0) -> M:
        """The ``count``-th message of a kind, once it has come; TimeoutError when it does not."""
        with self._news:
            if not self._news.wait_for(lambda: len(self._of(kind)) >= count, timeout):
                raise TimeoutError(f"no {kind.__name__} came, but {[m.kind() for m in self.heard]}")
            return self._of(kind)[count - 1]

    def _of(self, kind: Type[M]) -> List[M]:
        return [message for message in self.heard if isinstance(message, kind)]

    def _run(self) -> None:
        while not self._stop.is_set() and not self._over(self.conduct.close_after):
            if self._router.poll(20):
                peer, *parts = self._router.recv_multipart()
                try:
                    received = decode(parts)
                except ProtocolError:
                    continue
                if isinstance(received.message, Message):
                    self._note(received.message)
                    self._answer(peer, received.message, received)
        self._router.close()

    def _note(self, message: Message) -> None:
        with self._news:
            self.heard.append(message)
            self._news.notify_all()

    def _over(self, limit: Optional[int]) -> bool:
        return limit is not None and self._tiles >= limit

    def _say(self, peer: bytes, message: Message, arrays: Sequence[NDArray[Any]] = ()) -> None:
        if self._over(self.conduct.stall_after):
            return
        parts = encode(message, session=self._sessions.get(peer, ""), arrays=arrays)
        if self.conduct.tamper is not None:
            parts = self.conduct.tamper(message, parts)
        if parts:
            self._router.send_multipart([peer, *parts])

    def _answer(self, peer: bytes, message: Message, received: Received) -> None:
        self._stop.wait(self.conduct.delay)
        if isinstance(message, Hello):
            self._greet(peer, message)
        elif self._over(self.conduct.forget_after) or self._sessions.get(peer) != received.session:
            self._say(peer, Reject(getattr(message, "id", 0), "session"))
        elif isinstance(message, Ping):
            self._say(peer, Pong(message.nonce))
        elif isinstance(message, (Load, Unload)):
            key = message.key if isinstance(message, Load) else ""
            self._load = Loaded(message.id, f"load-{key}" if key else "", key, scale=self.conduct.scale)
            self._say(peer, self._load)
        elif isinstance(message, Upscale):
            self._upscale(peer, message, received.buffers)
        elif isinstance(message, Cancel):
            self._say(peer, Cancelled(message.id, message.attempt))
        elif isinstance(message, Drain):
            self._say(peer, Drained(message.id))
        elif isinstance(message, Bye):
            self._sessions.pop(peer, None)

    def _greet(self, peer: bytes, hello: Hello) -> None:
        oldest, newest = self.conduct.versions
        common = highest_common(hello.protocol_min, hello.protocol_max, our_oldest=oldest, our_newest=newest)
        reason = self.conduct.refuse or ("version" if common is None else "")
        if reason or common is None:
            self._say(peer, Reject(hello.id, reason, "told to refuse", oldest, newest))
            return
        self._sessions[peer] = secrets.token_hex(8)
        credit, largest = self.conduct.credit_tiles, 1 << 30
        welcome = Welcome(hello.id, self._sessions[peer], common, "fake", credit_tiles=credit, credit_bytes=largest)
        self._say(peer, welcome)
        self._say(peer, Ready("cpu"))

    def _upscale(self, peer: bytes, request: Upscale, parts: Sequence[Bytes]) -> None:
        number, attempt = request.id, request.attempt
        self._say(peer, Accepted(number, attempt))
        self._say(peer, Started(number, attempt))
        if self.conduct.failure:
            self._say(peer, Failed(number, attempt, self.conduct.failure, message="told to fail"))
            self._say(peer, Credit(len(parts), sum(buffer.nbytes for buffer in request.bufs)))
            return
        order = range(len(parts))
        for index in reversed(order) if self.conduct.reverse else order:
            tile = to_dtype(to_float(view(request.bufs[index], parts[index])), request.out_dtype)
            result = np.repeat(np.repeat(tile, self.conduct.scale, axis=0), self.conduct.scale, axis=1)
            self._say(peer, TileDone(number, attempt, index, ()), (result,))
            self._say(peer, Credit(1, request.bufs[index].nbytes))
            self._tiles += 1
