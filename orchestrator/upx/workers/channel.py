"""ZeroMQ on the host, and nothing else of the host imports it: one hub per I/O thread, one channel per worker.

A channel never reconnects: a worker that went away is dead, and whoever binds its address later is another one.
"""

from __future__ import annotations

import math
import socket
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import zmq
from zmq.utils import z85

from upx.errors import WorkerStartError
from upx.workers import faults
from upx_protocol.codec import decode, encode
from upx_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from upx.workers.endpoints import ClientKeys, Transport
    from upx_protocol.arrays import Bytes
    from upx_protocol.codec import Received
    from upx_protocol.messages import Message
    from upx_protocol.packing import Piece
    from upx_protocol.pipe import Pipe

# Untyped in pyzmq.
_encode = cast("Callable[[bytes], bytes]", z85.encode)
_decode = cast("Callable[[str], bytes]", z85.decode)
# Credits bound what is queued in tiles and bytes; this bounds the small messages beside them. A box is trusted less
# than a worker of this machine: it has no more to say at a time than results for the credit that it gave.
HIGH_WATER, FAR_HIGH_WATER = 1000, 64
LARGEST_PART, FAR_LARGEST_PART = 1 << 30, 256 << 20
# Messages taken from one worker before the others have their turn.
AT_A_TIME = 64
NEAR = (
    (zmq.LINGER, 0), (zmq.RECONNECT_IVL, -1), (zmq.SNDHWM, HIGH_WATER), (zmq.RCVHWM, HIGH_WATER),
    (zmq.MAXMSGSIZE, LARGEST_PART),
)  # fmt: skip
# Seconds to connect and to shake hands; a link that is silent for ten seconds is dead.
FAR = (
    (zmq.CONNECT_TIMEOUT, 5_000), (zmq.HANDSHAKE_IVL, 5_000), (zmq.TCP_MAXRT, 15_000),
    (zmq.HEARTBEAT_IVL, 2_000), (zmq.HEARTBEAT_TIMEOUT, 10_000), (zmq.HEARTBEAT_TTL, 10_000),
    (zmq.RCVHWM, FAR_HIGH_WATER), (zmq.MAXMSGSIZE, FAR_LARGEST_PART), (zmq.IPV6, 1),
)  # fmt: skip
# A number, and events are taken for numbers: pyzmq's enumeration keeps whatever it has met for ever, descriptors too,
# and its parser brings asyncio along.
END_EVENTS = int(
    zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)  # fmt: skip


def default_transport() -> Transport:
    """Local sockets where libzmq has them, else the loopback with CURVE."""
    return "ipc" if zmq.has("ipc") else "tcp"


def new_key_pair() -> tuple[str, str]:
    """A fresh CURVE pair (public, secret) in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def key_text(key: str) -> str:
    """A public key as people see it, of one in Z85: 64 hexadecimal digits."""
    return _decode(key).hex()


def key_from_text(text: str) -> str:
    """A key in Z85, of one in hexadecimal; ValueError for anything else."""
    return _encode(bytes.fromhex(text)).decode("ascii")


class Hub:
    """What one I/O thread waits on: its channels, descriptors of processes, and a bell that other threads ring.

    ``ring`` may be called from any thread; everything else from the owner's alone.
    """

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._ears, self._bell = socket.socketpair()
        self._ears.setblocking(False)
        self._bell.setblocking(False)
        self._ear = self._ears.fileno()
        self._poller.register(self._ear, zmq.POLLIN)
        self._stirred: set[Any] = set()

    def connect(
        self, endpoint: str, *, server_key: str = "", keys: ClientKeys | None = None, far: bool = False
    ) -> Channel:
        """A channel to a worker that has bound; with its public key where the endpoint is tcp.

        ``far``: on another machine, so that half-open links are noticed. WorkerStartError where there can be none: no
        address, a key that is none, no descriptor left. A name that does not resolve is no error: nobody answers.
        """
        return Channel(self._context, self._poller, self._stirred, endpoint, server_key=server_key, keys=keys, far=far)

    def watch(self, fd: int) -> None:
        """Wake up when the descriptor becomes readable: a pidfd, at its process's end."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor that was watched."""
        self._poller.unregister(fd)

    def noticed(self, fd: int) -> bool:
        """Whether a descriptor that is watched was readable when the last wait ended."""
        return fd in self._stirred

    def wait(self, seconds: float) -> None:
        """Return when something came, the bell rang, or the time is up."""
        self._stirred.clear()
        # Rounded up: whoever waits for a moment would ask again and again in the last millisecond before it.
        self._stirred.update([what for what, _ in self._poller.poll(math.ceil(max(0.0, seconds) * 1000))])
        if self._ear in self._stirred:
            self._ears.recv(4096)  # Where it has rung more often than that, it rings on.

    def ring(self) -> None:
        """Wake the owner up."""
        try:
            self._bell.send(b"\0")
        except BlockingIOError:
            return  # It has been rung thousands of times already and will wake.

    def close(self) -> None:
        """Give everything back; what was sent may take as long as each channel's linger says."""
        self._poller.unregister(self._ear)
        self._ears.close()
        self._bell.close()
        self._context.term()


class Channel:
    """One DEALER to one worker's ROUTER."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        poller: zmq.Poller,
        stirred: set[Any],
        endpoint: str,
        *,
        server_key: str,
        keys: ClientKeys | None,
        far: bool,
    ) -> None:
        self._poller, self._stirred = poller, stirred
        self._pipe: Pipe | None = None
        # Whether the pipe has taken every batch so far.
        self._piping = self._gone = False
        self.why = ""
        try:
            # A socket that is left open lets no hub close.
            with ExitStack() as undo:
                self._socket = context.socket(zmq.DEALER)
                undo.callback(self._socket.close, linger=0)
                for option, value in (*NEAR, *(FAR if far else ())):
                    self._socket.setsockopt(option, value)
                if keys is not None:
                    self._socket.curve_serverkey = server_key.encode()
                    self._socket.curve_publickey = keys.public.encode()
                    self._socket.curve_secretkey = keys.secret.encode()
                undo.callback(self._socket.disable_monitor)
                self._monitor = self._socket.get_monitor_socket(events=END_EVENTS)
                undo.callback(self._monitor.close, linger=0)
                self._socket.connect(endpoint)
                undo.pop_all()
        except zmq.ZMQError as error:
            raise WorkerStartError(
                f"{endpoint} cannot be connected to: {error}",
                hint="upx worker list shows the addresses and keys of boxes",
            ) from error
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    @property
    def pipe(self) -> Pipe | None:
        """The short way to the same worker; it is closed with the channel, and by the next."""
        return self._pipe

    @pipe.setter
    def pipe(self, pipe: Pipe | None) -> None:
        if pipe is self._pipe:
            return
        if self._pipe is not None:
            self._poller.unregister(self._pipe.fileno())
            self._pipe.close()
        self._pipe, self._piping = pipe, True
        if pipe is not None:
            self._poller.register(pipe.fileno(), zmq.POLLIN)

    def send(self, message: Message, *, session: str = "", arrays: Sequence[Piece] = (), in_ring: bool = False) -> bool:
        """Send without waiting; False where the worker is gone or takes nothing more.

        ``in_ring``: a batch in the ring. Each of them must come after the one before: once the pipe does not take one,
        none goes there any more.

        The arrays are copied: sending from their own memory saves 0.1 ms per tile and costs a thread of pyzmq's that
        never ends, and whoever changes an array too early would corrupt it.
        """
        parts = encode(message, session=session, arrays=arrays)
        if in_ring and self._pipe is not None and self._piping:
            self._piping = self._pipe.send(parts[0])
            if self._piping:
                return True
        try:
            if len(parts) == 1:
                self._socket.send(parts[0], zmq.NOBLOCK)
            else:
                self._socket.send_multipart(parts, flags=zmq.NOBLOCK, copy=True)
        except zmq.Again:
            return False
        return True

    def receive(self) -> Iterator[Received | ProtocolError]:
        """What has come, a few dozen messages at most; bytes that are no message come as the error they are."""
        for _ in range(AT_A_TIME):
            # Asking first: an exception for every message costs more than the message.
            if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                break
            parts: list[Bytes] = [self._socket.recv(zmq.NOBLOCK)]
            while self._socket.getsockopt(zmq.RCVMORE):
                # The buffers refer to the frames' memory and keep it: results are never copied.
                parts.append(cast("Any", self._socket.recv(zmq.NOBLOCK, copy=False)).buffer)
            # What the worker put into the pipe before it sent this through the socket comes before it.
            yield from self._piped()
            yield _decoded(parts)
        yield from self._piped()

    def _piped(self) -> Iterator[Received | ProtocolError]:
        pipe = self._pipe
        if pipe is None:
            return
        for message in pipe.receive():
            yield _decoded([message])
        # What was heard may have put another into its place.
        if pipe.ended and pipe is self._pipe:
            self.pipe = None

    @property
    def has_mail(self) -> bool:
        """Whether messages had come when the hub's last wait ended."""
        return self._socket in self._stirred or (self._pipe is not None and self._pipe.fileno() in self._stirred)

    @property
    def has_news(self) -> bool:
        """Whether something had happened to the connection itself by then."""
        return self._monitor in self._stirred

    @property
    def gone(self) -> bool:
        """Whether the connection has ended or could not be made; messages that came before can still be received."""
        while not self._gone:
            try:
                event = int(struct.unpack("=hi", self._monitor.recv_multipart(zmq.NOBLOCK)[0])[0])
            except zmq.Again:
                break
            self._gone = bool(event & END_EVENTS)
            self.why = self.why or _why(event)
        if self._gone and self._monitor in self._poller:
            self._poller.unregister(self._monitor)
        return self._gone

    def close(self, *, linger: float = 0.0) -> None:
        """Close; what was sent last may take ``linger`` seconds to get out."""
        self.pipe = None
        self._poller.unregister(self._socket)
        if self._monitor in self._poller:
            self._poller.unregister(self._monitor)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(linger * 1000))


def _decoded(parts: list[Bytes]) -> Received | ProtocolError:
    try:
        return decode(parts)
    except ProtocolError as error:
        return error


def _why(event: int) -> str:
    """Why a connection ended, in words; the first event tells."""
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return faults.REFUSED
    if event in {zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL}:
        return faults.STRANGER
    if event == zmq.EVENT_DISCONNECTED:
        return "it closed the connection"
    return "nothing answers at its address"
