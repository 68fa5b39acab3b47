"""The page for Prometheus: what it says, who gets it, and that strangers' requests cost nothing."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from box_kit import SERVE, until

from upx.errors import UsageError, WorkerStartError
from upx.serving.metrics import MetricsServer, page, parse_metrics

LINE = re.compile(r'^upx_[a-z_]+\{([a-z]+="(\\.|[^"\\])*",?)+\} -?[0-9.e+]+$')


def worker(**facts) -> SimpleNamespace:
    info = SimpleNamespace(model='a"b\\', hosts=2, memory=1 << 20, idle=0.0, started=0.0, **facts)
    return SimpleNamespace(info=info, port=7600, restarts=3, plan=SimpleNamespace(backend="nearest", device="cpu"))


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_every_line_is_one_that_prometheus_reads() -> None:
    down = SimpleNamespace(**{**vars(worker()), "info": None, "port": 7601})
    lines = page("attic", [worker(), down]).splitlines()
    figures = [line for line in lines if not line.startswith("# ")]
    assert len(figures) == 12
    assert all(LINE.match(line) for line in figures), figures
    labels = 'box="attic",port="7600",backend="nearest",device="cpu",model="a\\"b\\\\"'
    assert f"upx_worker_hosts{{{labels}}} 2" in figures
    assert sum(line.startswith("# TYPE") for line in lines) == 6
    assert any(line.startswith("upx_worker_up{") and 'port="7601"' in line and line.endswith(" 0") for line in figures)


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


def test_a_box_serves_its_figures_and_nothing_else(serve) -> None:
    box = serve(*SERVE, "--metrics", "0")
    port = int(re.findall(r"metrics at port ([0-9]+)", box.said)[0])
    until(lambda: 'upx_worker_up{box="attic"' in get(port) and "} 1" in get(port))
    assert f'port="{box.port}"' in get(port)
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(port, "/keys")
    assert refused.value.code == 404
    refused.value.close()
