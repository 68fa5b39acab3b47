"""A hundred thousand hostile messages: neither side stops, grows or answers wrongly."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zmq

from upx_protocol.codec import decode
from upx_protocol.errors import ProtocolError
from upx_protocol.messages import Ping, Pong
from upx_protocol.testing import host_messages, mangled, worker_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import RunningWorker
    from upx_protocol.testing import FakeHost

COUNT = int(os.environ.get("UPX_MANGLED", "100000"))
SEED = int(os.environ.get("UPX_SEED", "20261121"))
TILE = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)
MEGABYTE = 1 << 20


@pytest.mark.timeout(150)
def test_a_worker_serves_on_among_mangled_messages_and_does_not_grow(
    start: Callable[..., RunningWorker], connect: Callable[..., FakeHost]
) -> None:
    worker = start()
    host, attacker = connect(worker), connect(worker)
    host.load("any")
    stream = mangled(SEED, host_messages(attacker.session, host.load_id))
    chunk = COUNT // 20
    memory = []
    for round_ in range(20):
        for parts in islice(stream, chunk):
            attacker.send_raw(parts)
            _read_all(attacker)
        attacker.hello()
        host.send(Ping(round_))
        assert host.expect(Pong, timeout=10.0).nonce == round_, f"seed {SEED}"
        (result,) = host.upscale([TILE])
        np.testing.assert_array_equal(result, TILE.repeat(2, axis=0).repeat(2, axis=1))
        memory.append(_resident(worker.process.pid))
    assert worker.process.poll() is None
    # The first rounds fill pools and caches.
    assert memory[-1] - memory[4] < 8 * MEGABYTE, f"{[m // MEGABYTE for m in memory]} MB, seed {SEED}"


def test_nothing_but_protocol_errors_comes_out_of_the_hosts_decoder() -> None:
    refused = 0
    for parts in islice(mangled(SEED + 1, worker_messages("s" * 24)), COUNT):
        try:
            decode(parts)
        except ProtocolError:
            refused += 1
    assert COUNT // 4 < refused < COUNT, f"seed {SEED + 1}: {refused} of {COUNT} refused"


def test_the_same_seed_makes_the_same_messages() -> None:
    good = worker_messages("s")
    assert list(islice(mangled(5, good), 200)) == list(islice(mangled(5, good), 200))


def _read_all(attacker: FakeHost) -> None:
    while attacker.socket.poll(0):
        attacker.socket.recv_multipart(zmq.NOBLOCK)


def _resident(pid: int) -> int:
    statm = Path(f"/proc/{pid}/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
