"""What a client of a box says, byte by byte, for whoever wants to say it again."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from upx.remote.keys import z85
from upx_protocol.testing import FakeHost

if TYPE_CHECKING:
    from _box import RunningBox

    from upx.workers.endpoints import ClientKeys


def recorded(box: RunningBox, keys: ClientKeys) -> bytes:
    """All bytes that a client sends in a short session, caught on the way."""
    said = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as way:

        def carry() -> None:
            theirs, _ = way.accept()
            with theirs, socket.create_connection(("127.0.0.1", box.port)) as ours:
                threading.Thread(target=_pump, args=(ours, theirs, bytearray()), daemon=True).start()
                _pump(theirs, ours, said)

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        server = z85(box.keys.public("server"))
        address = f"tcp://127.0.0.1:{way.getsockname()[1]}"
        with FakeHost(address, curve=(server, keys.public, keys.secret)) as it:
            it.hello()
        thread.join(5)
    return bytes(said)


def _pump(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
    # Whoever hangs up first ends both directions.
    with suppress(OSError):
        while part := source.recv(65_536):
            copy += part
            target.sendall(part)
