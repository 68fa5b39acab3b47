"""The page for Prometheus: what it says, who gets it, and that strangers' requests cost nothing."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from box_kit import SERVE, has_ipv6, until
from PIL import Image

from upx.errors import UsageError, WorkerStartError
from upx.serving.metrics import METRICS, MOST_CONNECTIONS, Figures, MetricsServer, page, parse_metrics
from upx_protocol.messages import Pong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINE = re.compile(r'^upx_[a-z_]+\{([a-z_]+="(\\.|[^"\\])*",?)+\} -?[0-9.e+]+$')
PONG = Pong(1, queued=3, tiles_done=7, pixels_done=12_345_678, busy_s=4.5, age_s=9.0, device_name='a "GPU"')
LABELS = 'box="attic",port="7600",backend="nearest",device="cpu"'


def figures(**changes) -> Figures:
    info = SimpleNamespace(model='a"b\\', hosts=2, memory=1 << 20, idle=0.0, started=1.0)
    worker = SimpleNamespace(port=7600, restarts=3, plan=SimpleNamespace(backend="nearest", device="cpu"))
    return Figures(**{"worker": worker, "info": info, "pong": PONG, **changes})


def values(text: str, port: int) -> dict[str, float]:
    """Every figure of a worker, by name."""
    found = re.findall(r"^([a-z_]+)\{([^}]*)\} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, labels, value in found if f'port="{port}"' in labels}


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_every_line_is_one_that_prometheus_reads() -> None:
    lines = page("attic", [figures()]).splitlines()
    found = [line for line in lines if not line.startswith("# ")]
    assert len(found) == len(METRICS) + 1
    assert all(LINE.match(line) for line in found), found
    assert f"upx_worker_hosts{{{LABELS}}} 2.0" in found
    assert f'upx_worker_info{{{LABELS},model="a\\"b\\\\",device_name="a \\"GPU\\""}} 1.0' in found


def test_every_metric_says_what_it_is_before_its_figures_and_is_named_as_its_kind_is() -> None:
    lines = page("attic", [figures()]).splitlines()
    for at, line in enumerate(lines):
        if line.startswith("# HELP"):
            _, _, name, *words = line.split()
            kind = lines[at + 1].removeprefix(f"# TYPE {name} ")
            assert kind in {"gauge", "counter"}
            assert name.endswith("_total") == (kind == "counter")
            assert lines[at + 2].startswith(f"{name}{{")
            assert words


def test_queue_tiles_pixels_and_computing_are_what_the_worker_says() -> None:
    found = values(page("attic", [figures()]), 7600)
    assert (found["upx_worker_queue_tiles"], found["upx_worker_tiles_total"]) == (3, 7)
    assert (found["upx_worker_pixels_total"], found["upx_worker_busy_seconds_total"]) == (12_345_678, 4.5)


def test_a_figure_that_nobody_knows_is_left_out_and_is_no_zero() -> None:
    always = {"upx_worker_up": 0.0, "upx_worker_restarts_total": 3.0, "upx_worker_info": 1.0}
    assert values(page("attic", [figures(pong=None, info=None)]), 7600) == always
    silent = values(page("attic", [figures(pong=None)]), 7600)
    in_entry = {"hosts", "memory_bytes", "idle_seconds", "uptime_seconds"}
    assert set(silent) == set(always) | {f"upx_worker_{name}" for name in in_entry}
    assert silent["upx_worker_up"] == 1


def test_an_entry_without_a_birth_tells_no_uptime() -> None:
    ageless = figures(info=SimpleNamespace(model="m", hosts=0, memory=1, idle=0.0, started=0.0))
    assert "upx_worker_uptime_seconds" not in values(page("attic", [ageless]), 7600)


def test_a_counter_has_no_label_that_changes_while_it_counts() -> None:
    other = figures(info=SimpleNamespace(model="another", hosts=0, memory=1, idle=0.0, started=0.0))
    both = [
        {line.partition("}")[0] for line in page("attic", [each]).splitlines() if "_total{" in line}
        for each in (figures(), other)
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 4


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1:", "99999", "1.2.3.4:-1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_metrics(text)


def test_a_port_alone_is_the_loopbacks() -> None:
    assert parse_metrics("9600") == ("127.0.0.1", 9600)
    assert parse_metrics("[::1]:9600") == ("::1", 9600)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(WorkerStartError, match="cannot be served"):
        MetricsServer(taken.getsockname(), str)


@pytest.fixture
def server() -> Iterator[Callable[..., MetricsServer]]:
    made: list[MetricsServer] = []

    def start(text: Callable[[], str], host: str = "127.0.0.1") -> MetricsServer:
        made.append(MetricsServer((host, 0), text))
        return made[-1]

    yield start
    for each in made:
        each.close()
    until(lambda: not answering())


def answering() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if "process_request_thread" in each.name]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_page_is_served_at_an_address_of_ipv6(server) -> None:
    port = server(lambda: "six", "::1").port
    with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=5) as answer:
        assert answer.read() == b"six"
    with pytest.raises(WorkerStartError, match=rf"served at \[::1\]:{port}"):
        MetricsServer(("::1", port), str)


def reset(connection: socket.socket) -> None:
    """End it as one does who is killed: the other side's next word fails."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_who_goes_in_the_middle_of_a_page_leaves_no_traceback(server, capfd, caplog) -> None:
    going, gone = threading.Event(), threading.Event()

    def text() -> str:
        going.set()
        assert gone.wait(5.0)
        return "x" * (1 << 20)

    port = server(text).port
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert going.wait(5.0)
    reset(connection)
    with caplog.at_level(logging.DEBUG, "upx.serve"):
        gone.set()
        until(lambda: "a request for figures has failed" in caplog.text)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert capfd.readouterr() == ("", "")


def test_a_page_that_cannot_be_made_is_a_fault_that_is_logged(server, caplog) -> None:
    def text() -> str:
        raise ValueError("no figures")

    with pytest.raises(OSError, match="closed connection"):
        get(server(text).port)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_strangers_who_only_connect_get_few_threads_and_keep_nobody_from_the_page(server) -> None:
    port = server(lambda: "figures").port
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * MOST_CONNECTIONS)]
    try:
        until(lambda: len(answering()) >= MOST_CONNECTIONS)
        for _ in range(3):
            assert get(port) == "figures"
        assert len(answering()) <= MOST_CONNECTIONS
    finally:
        for each in strangers:
            each.close()


def test_more_requests_than_there_are_threads_wait_for_one_or_are_turned_away(server) -> None:
    free = threading.Event()

    def text() -> str:
        assert free.wait(10.0)
        return "figures"

    port = server(text).port
    asked = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_CONNECTIONS + 2)]
    for each in asked:
        each.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    until(lambda: len(answering()) == MOST_CONNECTIONS)
    time.sleep(0.2)
    assert len(answering()) == MOST_CONNECTIONS
    free.set()
    for each in asked:
        each.close()
    until(lambda: not answering())
    assert get(port) == "figures"


def test_a_box_serves_its_figures_and_nothing_else(serve) -> None:
    box = serve(*SERVE, "--metrics", "0")
    port = int(re.findall(r"metrics at port ([0-9]+)", box.said)[0])
    until(lambda: 'upx_worker_up{box="attic"' in get(port) and "} 1" in get(port))
    assert f'port="{box.port}"' in get(port)
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(port, "/keys")
    assert refused.value.code == 404
    refused.value.close()


def test_what_a_box_computes_is_counted_on_its_page(serve, attic, laptop, add, tmp_path) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve(*SERVE, "--metrics", "0")
    assert add(box).returncode == 0
    port = int(re.findall(r"metrics at port ([0-9]+)", box.said)[0])
    before = until(lambda: "upx_worker_tiles_total" in (found := values(get(port), box.port)) and found)
    assert (before["upx_worker_tiles_total"], before["upx_worker_hosts"]) == (0, 0), "who asks is no host"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "in.png")
    ended = laptop.upx("up", tmp_path / "in.png", "-b", "nearest", "-t", "32", "--on", "attic", "--set", "delay=0.05")
    assert ended.returncode == 0, ended.stderr
    after = values(get(port), box.port)
    assert after["upx_worker_tiles_total"] >= 4
    assert after["upx_worker_pixels_total"] >= 64 * 64
    assert 0.2 <= after["upx_worker_busy_seconds_total"] < after["upx_worker_uptime_seconds"]
    assert after["upx_worker_queue_tiles"] == 0
    assert 'model="nearest-x4"' in get(port)


def test_a_page_goes_on_when_its_worker_dies_and_counts_its_successor_from_zero(serve) -> None:
    box = serve(*SERVE, "--metrics", "0")
    port = int(re.findall(r"metrics at port ([0-9]+)", box.said)[0])
    until(lambda: "upx_worker_tiles_total" in values(get(port), box.port))
    child = box.child
    os.kill(child, signal.SIGKILL)
    box.await_another(child)
    found = until(lambda: "upx_worker_tiles_total" in (now := values(get(port), box.port)) and now)
    assert (found["upx_worker_restarts_total"], found["upx_worker_tiles_total"]) == (1, 0)
