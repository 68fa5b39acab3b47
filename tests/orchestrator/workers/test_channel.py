"""Channels that cannot be made are said and leave nothing; what they import; when the thread that has them wakes up."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time

import pytest
import zmq
from worker_kit import noise, until

from upx.errors import TileRefusedError, WorkerStartError
from upx.workers import channel
from upx.workers.channel import Hub
from upx.workers.endpoints import ClientKeys
from upx.workers.far import FarSite
from upx.workers.happenings import BatchFailed
from upx.workers.plan import LoadPlan, Timeouts
from upx.workers.pool import WorkerPool

NOWHERE = "tcp://127.0.0.1:1"


def closes(hub: Hub) -> bool:
    """Whether it closes at all: a socket that somebody forgot would keep it from that for ever."""
    thread = threading.Thread(target=hub.close, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def pair() -> ClientKeys:
    return ClientKeys(*channel.new_key_pair())


@pytest.mark.parametrize("wrong", ["server", "public", "secret"])
def test_a_key_that_is_none_is_said_and_keeps_no_hub_open(wrong) -> None:
    keys = {"server": pair().public, "public": pair().public, "secret": pair().secret, wrong: "no key"}
    hub = Hub()
    with pytest.raises(WorkerStartError, match=NOWHERE) as caught:
        hub.connect(NOWHERE, server_key=keys["server"], keys=ClientKeys(keys["public"], keys["secret"]))
    assert "upx worker list" in caught.value.hint
    assert closes(hub), "while the traceback holds the channel"


@pytest.mark.parametrize("made_by", [(zmq.Context, "socket"), (zmq.Socket, "get_monitor_socket")])
def test_where_no_descriptor_is_left_it_is_said_and_keeps_no_hub_open(monkeypatch, made_by) -> None:
    def none_left(*_args, **_options):
        raise zmq.ZMQError(errno.EMFILE)

    hub = Hub()
    monkeypatch.setattr(*made_by, none_left)
    with pytest.raises(WorkerStartError, match="Too many open files") as caught:
        hub.connect(NOWHERE)
    assert closes(hub), caught.value


def test_a_name_that_does_not_resolve_is_no_error_here() -> None:
    hub = Hub()
    hub.connect("tcp://no.such.machine.invalid:7600", far=True).close()
    assert closes(hub)


def test_an_event_of_a_connection_is_nothing_that_is_kept_for_ever() -> None:
    known = len(zmq.Event._value2member_map_)
    hub = Hub()
    link = hub.connect(NOWHERE)
    for _ in until(5):
        if link.gone:
            break
    assert (link.gone, link.why) == (True, "nothing answers at its address")
    assert len(zmq.Event._value2member_map_) == known
    link.close()
    assert closes(hub)


def test_the_channel_imports_no_asyncio() -> None:
    code = "import sys, upx.workers.channel; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long each wait of a hub was to be."""
    asked: list[float] = []
    wait = Hub.wait

    def noted(hub: Hub, seconds: float) -> None:
        asked.append(seconds)
        wait(hub, seconds)

    monkeypatch.setattr(Hub, "wait", noted)
    return asked


def test_what_the_thread_tells_itself_is_not_waited_for(open_pool, plan, monkeypatch) -> None:
    eyes = open_pool(plan)
    told: list[float] = []
    wait = Hub.wait

    def noted(hub: Hub, seconds: float) -> None:
        supervisor = eyes.pool._supervisor
        if supervisor is not None and any(isinstance(it[0], BatchFailed) for it in list(supervisor._inbox)):
            told.append(seconds)
        wait(hub, seconds)

    monkeypatch.setattr(Hub, "wait", noted)
    # Sent as soon as the worker serves: nobody else rings then.
    (future,) = eyes.submit(noise(1), thing=object())
    assert isinstance(future.exception(30), TileRefusedError)
    assert told == [0.0]


def test_a_box_that_is_away_is_tried_without_haste(settings, waits) -> None:
    site = FarSite("attic", NOWHERE, pair().public, pair())
    plan = LoadPlan(backend="nearest", model="nearest-x4", workers=0)
    timeouts = Timeouts(reach=1.5, far_backoff_most=0.8)
    with WorkerPool(plan, settings, timeouts=timeouts, sites=[site]) as pool:
        began = time.monotonic()
        with pytest.raises(WorkerStartError, match="attic cannot be reached"):
            pool.ready(30)
        took = time.monotonic() - began
    assert took > timeouts.reach
    assert len(waits) < 20 * took, "a hundred times a second would be without a pause"
