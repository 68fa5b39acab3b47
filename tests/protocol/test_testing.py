"""The fake worker misbehaves as told, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from upx_protocol.errors import MalformedError
from upx_protocol.messages import Bye, Credit, Failed, Hello, Ping, Pong, Reject, TileDone, Upscale
from upx_protocol.testing import Conduct, FakeHost, FakeWorker, garble, truncate_tiles
from upx_protocol.version import Version

if TYPE_CHECKING:
    from pathlib import Path

TILE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def session(sockets: Path, conduct: Conduct) -> tuple[FakeWorker, FakeHost]:
    worker = FakeWorker(f"ipc://{sockets}/fake", conduct)
    return worker, FakeHost(worker.endpoint, timeout=2.0)


def test_a_well_behaved_one_repeats_pixels(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(scale=3))
    with worker, host:
        host.hello()
        assert host.load("any").scale == 3
        np.testing.assert_array_equal(host.upscale([TILE])[0], TILE.repeat(3, axis=0).repeat(3, axis=1))
        assert worker.wait_for(Upscale).load_id == host.load_id
        host.send(Bye())
        worker.wait_for(Bye)
    assert isinstance(worker.heard[0], Hello)


def test_it_truncates(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(tamper=truncate_tiles))
    with worker, host:
        host.hello()
        host.load("any")
        host.submit([TILE])
        with pytest.raises(MalformedError, match="bytes"):
            host.expect(TileDone)


def test_it_garbles(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(tamper=garble(3, (Pong,))))
    with worker, host:
        host.hello()
        answers = []
        for nonce in range(20):
            host.send(Ping(nonce))
            try:
                answers.append(host.receive().message == Pong(nonce))
            except MalformedError:
                answers.append(False)
        assert not all(answers)


def test_it_reverses(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(reverse=True))
    with worker, host:
        host.hello()
        host.load("any")
        host.submit([TILE, TILE, TILE])
        assert [host.expect(TileDone).index for _ in range(3)] == [2, 1, 0]


def test_it_stalls(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(stall_after=1))
    with worker, host:
        host.hello()
        host.load("any")
        host.submit([TILE, TILE])
        host.expect(Credit)
        host.send(Ping(1))
        with pytest.raises(TimeoutError):
            host.expect(Pong, timeout=0.3)


def test_it_closes_early(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(close_after=1))
    with worker, host:
        host.hello()
        host.load("any")
        host.submit([TILE])
        worker.wait_for(Upscale)
        host.send(Ping(1))
        with pytest.raises(TimeoutError):
            host.expect(Pong, timeout=0.3)


def test_it_delays(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(delay=0.4))
    with worker, host:
        host.send(Hello(1, Version(1, 0), Version(1, 0)), session="")
        with pytest.raises(TimeoutError):
            host.receive(timeout=0.2)
        host.receive()


def test_it_speaks_another_version_refuses_fails_and_forgets(sockets: Path) -> None:
    worker, host = session(sockets, Conduct(versions=(Version(3, 0), Version(4, 2))))
    with worker, host:
        host.send(Hello(1, Version(1, 0), Version(1, 0)), session="")
        reject = host.expect(Reject)
        assert (reject.reason, reject.protocol_max) == ("version", Version(4, 2))
    worker, host = session(sockets, Conduct(refuse="leaving"))
    with worker, host:
        host.send(Hello(1, Version(1, 0), Version(1, 0)), session="")
        assert host.expect(Reject).reason == "leaving"
    worker, host = session(sockets, Conduct(failure="oom"))
    with worker, host:
        host.hello()
        host.load("any")
        host.submit([TILE])
        assert host.expect(Failed).failure == "oom"
        host.expect(Credit)
    worker, host = session(sockets, Conduct(forget_after=0))
    with worker, host:
        host.hello()
        host.send(Ping(1))
        assert host.expect(Reject).reason == "session"


def test_a_wait_for_what_never_comes_ends(sockets: Path) -> None:
    worker, host = session(sockets, Conduct())
    with worker, host:
        with pytest.raises(TimeoutError):
            worker.wait_for(Upscale, timeout=0.1)
        with pytest.raises(TimeoutError):
            host.receive(timeout=0.1)
