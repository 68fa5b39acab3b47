"""Where a box listens: what may be asked for, and sockets that are all there or none."""

from __future__ import annotations

import socket

import pytest

from upx.errors import UsageError, WorkerStartError
from upx.serving.addresses import Address, listen, parse_listen

EVERY = "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("tcp://127.0.0.1:7600", Address("127.0.0.1", 7600), True),
        ("tcp://0.0.0.0:7600", Address(EVERY, 7600), False),
        ("tcp://*:7600", Address(EVERY, 7600), False),
        ("tcp://[::1]:0", Address("::1", 0), True),
        ("tcp://localhost:*", Address("localhost", 0), True),
    ],
)
def test_an_address_is_a_host_and_a_port_and_a_star_is_any(text, address, loopback) -> None:
    assert parse_listen(text) == address
    assert address.loopback is loopback


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1:7600", "ipc:///x", "tcp://127.0.0.1", "tcp://127.0.0.1:65536", "tcp://a b:1", "tcp://:1"]
)
def test_anything_else_is_refused(text) -> None:
    with pytest.raises(UsageError, match="no address to listen at"):
        parse_listen(text)


def test_an_address_of_version_6_is_bound_in_brackets() -> None:
    assert Address("::1", 0).endpoint(7600) == "tcp://[::1]:7600"
    assert Address("127.0.0.1", 0).endpoint(7600) == "tcp://127.0.0.1:7600"


def test_every_worker_gets_a_socket_that_already_queues() -> None:
    made = listen(Address("127.0.0.1", 0), 3)
    try:
        ports = {each.getsockname()[1] for each in made}
        assert len(ports) == 3
        for port in ports:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    finally:
        for each in made:
            each.close()


def test_where_one_port_is_taken_none_is_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WorkerStartError, match=f"tcp://127.0.0.1:{port} cannot be listened at"):
            listen(Address("127.0.0.1", port - 1), 2)
        with socket.create_server(("127.0.0.1", port - 1)):
            pass


def test_ports_beyond_the_last_are_said() -> None:
    with pytest.raises(WorkerStartError, match="cannot be listened at"):
        listen(Address("127.0.0.1", 65535), 2)


def test_a_host_that_is_none_of_ours_is_said() -> None:
    with pytest.raises(WorkerStartError, match="cannot be listened at"):
        listen(Address("192.0.2.1", 0), 1)
