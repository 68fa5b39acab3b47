"""A worker on tcp: known hosts may enter, nobody else."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
import zmq

from upx_protocol.messages import Ping, Pong
from upx_protocol.testing import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunningWorker


def pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def endpoint_of(worker: RunningWorker, entry: Path) -> str:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline and worker.process.poll() is None:
        if entry.exists() and entry.read_text():
            return json.loads(entry.read_text())["endpoint"]
        time.sleep(0.02)
    raise TimeoutError(f"no entry: {worker.stderr}")


def test_only_the_key_in_the_keys_file_may_enter(start: Callable[..., RunningWorker], tmp_path: Path) -> None:
    server, client, stranger = pair(), pair(), pair()
    keys, entry = tmp_path / "keys.json", tmp_path / "entry.json"
    keys.write_text(json.dumps({"server_public": server[0], "server_secret": server[1], "client_public": client[0]}))
    endpoint = endpoint_of(start(endpoint="tcp://127.0.0.1:*", curve_keys=str(keys), entry=str(entry)), entry)
    assert json.loads(entry.read_text())["curve_public"] == server[0]
    with FakeHost(endpoint, timeout=1.0, curve=(server[0], *stranger)) as host, pytest.raises(TimeoutError):
        host.hello()
    with FakeHost(endpoint, timeout=1.0) as host, pytest.raises(TimeoutError):
        host.hello()
    with FakeHost(endpoint, curve=(server[0], *client)) as host:
        host.hello()
        host.load("any")
        host.send(Ping(4))
        assert host.expect(Pong).nonce == 4


def test_a_worker_never_listens_on_tcp_without_keys(start: Callable[..., RunningWorker]) -> None:
    worker = start(endpoint="tcp://127.0.0.1:*")
    assert worker.ended() != 0
    assert "CURVE" in worker.stderr


def test_keys_that_cannot_be_read_end_the_worker(start: Callable[..., RunningWorker], tmp_path: Path) -> None:
    worker = start(endpoint="tcp://127.0.0.1:*", curve_keys=os.fspath(tmp_path / "none.json"))
    assert worker.ended() != 0
    assert "FileNotFoundError" in worker.stderr
