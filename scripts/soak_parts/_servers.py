"""Servers of the attackers': what is attacked in place of a box, and one that is none."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import zmq
from _strangers import has_ended
from _targets import LOOPBACK, begin

from upx_protocol.codec import decode, encode
from upx_protocol.errors import ProtocolError
from upx_protocol.messages import Hello, Load, Loaded, Message, Ready, Unknown, Welcome
from upx_protocol.version import NEWEST

if TYPE_CHECKING:
    from _targets import Done, Going, Target


def sink(_target: Target, done: Done, going: Going) -> None:
    """Takes what strangers send, and hangs up where they do. Says its port first."""
    with socket.create_server((LOOPBACK, 0), backlog=1_024) as server, select.epoll() as poller:
        begin(server.getsockname()[1])
        poller.register(server, select.EPOLLIN)
        guests: dict[int, socket.socket] = {}
        while going():
            for fd, _ in poller.poll(0.1):
                if fd == server.fileno():
                    done.connections += 1
                    guest, _ = server.accept()
                    guests[guest.fileno()] = guest
                    poller.register(guest, select.EPOLLIN)
                elif has_ended(guests[fd]):
                    poller.unregister(fd)
                    guests.pop(fd).close()
        for guest in guests.values():
            guest.close()


def curve_sink(target: Target, done: Done, going: Going) -> None:
    """A CURVE server with the keys of a box, which lets one client in and does nothing for it. Says its port first."""
    context = zmq.Context()
    guard, router = context.socket(zmq.REP), context.socket(zmq.ROUTER)
    guard.bind("inproc://zeromq.zap.01")
    begin(_serve(router, target.server, target.secret))
    poller = zmq.Poller()
    poller.register(guard, zmq.POLLIN)
    poller.register(router, zmq.POLLIN)
    while going():
        for ready, _ in poller.poll(100):
            if ready is guard:
                version, request, *_, key = guard.recv_multipart()
                known = key.hex() == target.public
                done.refused += not known
                guard.send_multipart([version, request, b"200" if known else b"400", b"", b"", b""])
                continue
            peer, header, *rest = router.recv_multipart()
            with suppress(ProtocolError):
                for answer in _answers(decode([header, *rest]).message):
                    router.send_multipart([peer, *encode(answer, session="sink")])
    router.close(0)
    guard.close(0)
    context.term()


def _answers(message: Message | Unknown) -> list[Message]:
    if isinstance(message, Hello):
        return [Welcome(message.id, "sink", NEWEST, "nearest"), Ready("cpu")]
    return [Loaded(message.id, "sink")] if isinstance(message, Load) else []


def impostor(target: Target, done: Done, going: Going) -> None:
    """A server that stands where a box stood, with other keys, and a host of that box that comes again and again."""
    # The others are no hosts, and begin sooner without.
    from upx.config import Settings
    from upx.errors import WorkerError
    from upx.remote.boxes import Box
    from upx.remote.visit import visit

    public, secret = (key.decode() for key in zmq.curve_keypair())
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    box = Box("attic", f"tcp://{LOOPBACK}:{_serve(router, public, secret)}", target.server, "nearest")
    while going():
        done.connections += 1
        try:
            visit(box, Settings.from_env({"UPX_HOME": target.home}))
            done.problem = "a box with another key was trusted"
        except WorkerError as error:
            done.refused += "does not hold the key" in str(error)
    if router.poll(0):
        done.problem = "a host spoke to a box with another key"
    router.close(0)
    context.term()


def _serve(router: zmq.Socket, public: str, secret: str) -> int:
    """Make it a CURVE server on a free port."""
    router.curve_server = True
    router.curve_publickey, router.curve_secretkey = public.encode(), secret.encode()
    return router.bind_to_random_port(f"tcp://{LOOPBACK}")
