"""A real box on this machine: who may use it, how it ends, and what it survives."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from box_kit import REFUSED, SERVE, content, lives, until

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")


def added(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_box_is_added_tested_listed_and_removed(serve, attic, laptop) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box, key = serve(), attic.keys.public("server")
    (row,) = laptop.records("worker", "add", "attic", box.address, "--key", key)
    assert (row["state"], row["backend"], row["endpoint"], row["key"]) == ("added", "nearest", box.address, key)
    (test,) = laptop.records("worker", "test", "attic")
    assert (test["name"], test["endpoint"], test["backend"], test["device"]) == ("attic", box.address, "nearest", "cpu")
    assert test["models"] == ["nearest-x2", "nearest-x3", "nearest-x4"]
    assert 0 < test["latency_ms"] < 1000
    assert test["mbit_per_second"] > 1
    assert [each["name"] for each in laptop.records("worker", "list")] == ["attic"]
    assert [each["state"] for each in laptop.records("worker", "rm", "attic")] == ["removed"]
    assert laptop.records("worker", "list") == []


def test_ps_shows_the_workers_of_boxes_and_goes_on_without_those_that_are_away(serve, attic, laptop) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve()
    laptop.knows(box)
    (row,) = laptop.records("ps", "--on", "attic")
    assert (row["id"], row["backend"], row["state"]) == (f"attic:{box.port}", "nearest", "idle")
    assert (row["hosts"], row["pid"]) == (0, 0)
    assert row["memory"] > 1 << 20
    gone = laptop.upx("worker", "add", "gone", "tcp://127.0.0.1:9", "--key", "ab" * 32, "--offline")
    assert gone.returncode == 0
    ended = laptop.upx("ps", "--on", "any")
    assert ended.returncode == 7
    _, here, away = ended.stdout.splitlines()
    assert here.split()[:2] == [f"attic:{box.port}", "nearest"]
    assert away.split()[0] == "gone:9"
    assert "unreachable" in away
    assert "gone cannot be reached" in ended.stderr
    assert "upx worker test gone" in ended.stderr
    assert laptop.records("ps") == []


def test_who_is_not_allowed_is_told_what_to_do_and_is_let_in_once_allowed(serve, attic, laptop, add) -> None:
    box = serve()
    ended = add(box)
    assert ended.returncode == 7, ended.stderr
    assert REFUSED in ended.stderr
    assert "upx key allow NAME KEY" in ended.stderr
    assert laptop.records("worker", "list") == []
    assert attic.upx("key", "allow", "laptop", laptop.keys.public("client")).returncode == 0
    until(lambda: add(box).returncode == 0)


def test_who_is_revoked_is_not_let_in_any_more(serve, attic, laptop, add) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve()
    added(add(box))
    assert attic.upx("key", "revoke", "laptop").returncode == 0
    until(lambda: laptop.upx("worker", "test", "attic").returncode == 7)
    assert REFUSED in laptop.refused("worker", "test", "attic")


def test_a_box_that_does_not_hold_the_key_is_not_trusted(serve, attic, laptop, add) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    ended = add(serve(), key=laptop.keys.public("server"))
    assert ended.returncode == 7, ended.stderr
    assert "attic does not hold the key that it was added with" in ended.stderr
    assert "upx worker rm attic" in ended.stderr
    assert laptop.records("worker", "list") == []


def test_a_box_that_was_set_up_anew_is_refused_until_it_is_added_anew(serve, attic, laptop, add) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    first = serve()
    laptop.knows(first)
    first.kill()
    attic.keys.new("server")
    second = serve(*SERVE[:4], first.address, *SERVE[5:])
    assert "does not hold the key" in laptop.refused("worker", "test", "attic")
    ended = add(second)
    assert ended.returncode == 2
    assert "pinned to another key" in ended.stderr
    assert laptop.upx("worker", "rm", "attic").returncode == 0
    added(add(second))


def test_a_box_that_is_off_cannot_be_reached(serve, attic, laptop) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve()
    laptop.knows(box)
    box.kill()
    assert "attic cannot be reached" in laptop.refused("worker", "test", "attic")


def test_nobody_listens_to_a_network_that_nobody_may_use(attic) -> None:
    ended = attic.upx("worker", "serve", "nearest", "--listen", "tcp://0.0.0.0:0")
    assert ended.returncode == 2
    assert "nobody is allowed to use this machine yet" in ended.stderr
    assert "upx key allow NAME KEY" in ended.stderr


def test_a_box_on_every_address_serves_and_is_drained(serve, attic, laptop, add) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve(*SERVE[:4], "tcp://0.0.0.0:0", *SERVE[5:])
    added(add(box))
    assert [each["outcome"] for each in attic.records("worker", "drain")] == ["drained"]
    assert box.ended() == 0


def test_a_port_that_is_taken_is_said(attic) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert f"{address} cannot be listened at" in attic.refused("worker", "serve", "nearest", "--listen", address)


def test_a_drained_box_ends_with_0(serve, attic) -> None:
    box = serve()
    (stopped,) = attic.records("worker", "drain")
    assert stopped["outcome"] == "drained"
    assert box.ended() == 0
    assert attic.records("worker", "drain") == []


def test_a_box_whose_key_is_replaced_shows_the_new_one_after_a_hangup_and_can_be_drained_before(
    serve, attic, laptop, add
) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box, old = serve(), attic.keys.public("server")
    attic.records("key", "new", "server", "--yes")
    added(add(box, key=old))
    child = box.child
    box.process.send_signal(signal.SIGHUP)
    box.await_another(child)
    assert "does not hold" in laptop.refused("worker", "test", "attic")
    assert add(box, name="anew").returncode == 0
    attic.records("key", "new", "server", "--yes")
    assert [row["outcome"] for row in attic.records("worker", "drain")] == ["drained"]
    assert box.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_box_that_is_told_to_end_does_so_within_six_seconds_with_0(serve, number) -> None:
    box = serve()
    child = box.child
    box.process.send_signal(number)
    assert box.ended(6.0) == 0
    assert not lives(child)
    assert "Traceback" not in box.said


def test_a_worker_that_is_killed_is_started_again_at_the_same_port(serve, attic, laptop) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve()
    laptop.knows(box)
    child = box.child
    os.kill(child, signal.SIGKILL)
    # The port is never closed: who comes meanwhile waits.
    (test,) = laptop.records("worker", "test", "attic")
    assert test["endpoint"] == box.address
    box.await_another(child)
    assert "killed by SIGKILL" in box.said


def test_a_box_outlives_a_python_that_cannot_be_run_for_a_while(serve, attic) -> None:
    # In an environment of its own: other tests go on with theirs.
    venvs = attic.home / "data" / "venvs"
    venvs.unlink()
    assert attic.upx("setup", "nearest").returncode == 0
    box = serve()
    child = box.child
    (python,) = venvs.glob("*/bin/python")
    away = python.with_name("away")
    python.rename(away)
    try:
        os.kill(child, signal.SIGKILL)
        until(lambda: "has no worker" in box.said, says=lambda: box.said)
        assert box.process.poll() is None
        assert [path.name for path in (attic.home / "state").rglob("*-?.json")] == []
    finally:
        away.rename(python)
    box.await_another(child)
    assert "Traceback" not in box.said


def test_a_worker_ends_with_its_box_even_one_that_is_killed(serve) -> None:
    box = serve()
    child = box.child
    box.process.kill()
    until(lambda: not lives(child), seconds=3.0)


def test_a_hangup_replaces_the_worker_and_keeps_the_port(serve, attic, laptop) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve()
    laptop.knows(box)
    child = box.child
    box.process.send_signal(signal.SIGHUP)
    box.await_another(child)
    assert laptop.records("worker", "test", "attic")[0]["endpoint"] == box.address
    assert not lives(child)
    assert box.process.poll() is None


def test_a_hangup_replaces_a_worker_that_has_only_just_begun(serve) -> None:
    box = serve()
    child = box.child
    box.process.send_signal(signal.SIGHUP)
    box.await_another(child)


def test_no_secret_key_can_be_read_from_processes_and_logs(serve, attic, laptop, add) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve(*SERVE, "-v")
    added(add(box))
    secrets = [
        json.loads((ring.folder / f"{which}.json").read_text())["secret"]
        for ring, which in ((attic.keys, "server"), (attic.keys, "client"), (laptop.keys, "client"))
    ]
    words = [content(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    words += [Path(f"/proc/{pid}/environ").read_bytes() for pid in (box.process.pid, box.child)]
    logs = [path for path in (attic.home / "state").rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in logs)
    words += [box.said.encode(), *(path.read_bytes() for path in logs)]
    assert not [secret for secret in secrets if any(secret.encode() in each for each in words)]


def test_a_box_that_logs_json_says_one_object_a_line(serve, attic, laptop, add) -> None:
    attic.keys.allow("laptop", laptop.keys.public("client"))
    box = serve(*SERVE, "--log-json")
    added(add(box))
    box.process.terminate()
    assert box.ended() == 0
    logs = [path.read_text() for path in (attic.home / "state" / "logs").glob("*.log")]
    assert logs
    for line in "".join([box.said, *logs]).splitlines():
        assert {"time", "level", "logger", "message"} <= set(json.loads(line))
