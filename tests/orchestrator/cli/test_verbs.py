"""The verbs beside ``up``: what they ask the host for, and what they print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fakes import FakeSession, venv, worker

from upx.cli import _checks
from upx.cli import stop as stop_verb
from upx.errors import ManifestError, PythonMissingError, UsageError, WorkerStartError
from upx.venvs.inventory import EnvRecord, Pruned
from upx.venvs.venv import Damage
from upx.workers import control, registry
from upx.workers.control import Stopped
from upx.workers.watch import Answer, Watcher


def records(ended) -> list[dict]:
    return [json.loads(line) for line in ended.lines]


def env_record(name="span", **changes) -> EnvRecord:
    facts = {"state": "complete", "in_use": False, "superseded": False, "size": 1 << 20, "venv": venv(name)}
    return EnvRecord(Path(f"/venvs/{name}-0123456789ab"), name, **{**facts, **changes})


@pytest.mark.parametrize("words", [["backends"], ["backends", "list"]])
def test_backends_are_listed_with_what_is_ready_and_what_is_wrong(upx, host, words) -> None:
    host.catalog.errors = [ManifestError("x/backend.toml: unknown key 'colour'", hint="remove it")]
    ended = upx(*words)
    assert ended.code == 0
    head, span, tiny, problem, step = ended.lines
    assert head.split() == ["BACKEND", "SCALES", "DEFAULT", "MODEL", "DEVICES", "READY"]
    assert span.split()[:5] == ["span", "x2", "x4", "span-x4", "cpu"]
    assert "yes" in span
    assert "no" in tiny.split()
    assert "unknown key 'colour'" in problem
    assert step == "  → remove it"
    assert [record["kind"] for record in records(upx(*words, "--json"))] == ["backend", "backend", "backend_problem"]


@pytest.mark.parametrize("name", ["span", "spannet", "span-x2"])
def test_all_about_one_backend_is_found_by_any_of_its_names(upx, name) -> None:
    ended = upx("backends", "info", name)
    assert ended.code == 0
    assert ended.lines[0] == "span (also: spannet): span for tests"
    assert "span-x2  x2     Apache-2.0" in ended.out
    assert "delay  float  0.0      0..    seconds" in ended.out


def test_an_unknown_backend_is_answered_with_the_nearest(upx) -> None:
    ended = upx("backends", "info", "spam")
    assert ended.code == 2
    assert "did you mean span?" in ended.err


def test_setup_tells_where_the_environment_is(upx) -> None:
    ended = upx("setup", "span", "--json")
    (record,) = records(ended)
    assert (record["backend"], record["flavour"], record["versions"]) == ("span", "cpu", {"numpy": "2.4"})
    assert upx("setup", "span").lines[0].startswith(f"span is ready: {venv('span').folder} (cpu, ")


def test_setup_goes_on_after_a_backend_that_fails(upx) -> None:
    ended = upx("setup", "spam", "span")
    assert ended.code == 2
    assert ended.out.startswith("span is ready")
    assert "did you mean span" in ended.err


def test_setup_that_cannot_build_ends_with_5(upx, host) -> None:
    host.not_ready = PythonMissingError("no Python 3.11", hint="install it", log="uv: none found")
    ended = upx("setup", "span", "-v")
    assert ended.code == 5
    assert ended.err.endswith("upx: no Python 3.11\n  → install it\nuv: none found\n")


def test_a_repair_counts_what_it_mended_and_names_who_shares_the_damage(upx) -> None:
    ended = upx("setup", "span", "--repair", "-q")
    assert "1 files mended" in ended.out
    assert "tiny shares the damage: 1 files: upx setup tiny --repair" in ended.err
    assert "cache was busy" in ended.err


def test_environments_are_listed(upx, host) -> None:
    assert "no environments yet" in upx("env").err
    host.envs.records = [env_record(), env_record("tiny", state="incomplete", venv=None, size=10)]
    _, first, second = upx("env", "list").lines
    assert first.split() == ["span-0123456789ab", "complete", "cpu", "1", "MiB"]
    assert second.split() == ["tiny-0123456789ab", "incomplete", "10", "B"]


def test_prune_says_what_went_and_what_is_in_use(upx, host, monkeypatch) -> None:
    asked = []

    def prune(*, unused):
        asked.append(unused)
        return Pruned((env_record(),), (env_record("tiny"),), 5 << 20), {Path("/stages/0123"): 1 << 20}

    monkeypatch.setattr(host, "prune", prune, raising=False)
    ended = upx("env", "prune", "--unused")
    assert asked == [True]
    assert ended.lines == [
        "removed /venvs/span-0123456789ab",
        "removed /stages/0123",
        "in use, kept /venvs/tiny-0123456789ab",
        "6 MiB freed",
    ]


def test_workers_are_listed(upx, monkeypatch) -> None:
    monkeypatch.setattr(registry, "list_workers", lambda _: [])
    assert "no workers are running" in upx("ps").err
    found = [worker(hosts=1, idle_s=300.0), worker("tiny", endpoint="", tied=True, idle=12.0)]
    monkeypatch.setattr(registry, "list_workers", lambda _: found)
    monkeypatch.setattr(Watcher, "look", lambda _self, targets, **_: dict.fromkeys(targets, Answer()))
    _, first, second = upx("ps").lines
    assert first.split()[:5] == ["span-1a2b3c4d-0", "span", "span-x4", "cpu", "in"]
    assert "5 min 00 s" in first
    assert "starting" in second
    assert "with its command" in second
    assert [record["state"] for record in records(upx("ps", "--json"))] == ["in use", "starting"]


def test_a_worker_that_has_left_since_it_was_listed_is_no_line(upx, monkeypatch) -> None:
    monkeypatch.setattr(registry, "list_workers", lambda _: [worker()])
    gone = Answer(error=WorkerStartError("span-1a2b3c4d-0 cannot be reached", hint="x"))
    monkeypatch.setattr(Watcher, "look", lambda _self, targets, **_: dict.fromkeys(targets, gone))
    monkeypatch.setattr(registry, "read", lambda _: None)
    ended = upx("ps")
    assert (ended.code, ended.out) == (0, "")
    monkeypatch.setattr(registry, "read", lambda _: worker())
    assert [record["state"] for record in records(upx("ps", "--json"))] == ["no answer"]


def test_stop_ends_what_is_named_and_tells_how(upx, monkeypatch) -> None:
    asked = []

    def end(_settings, selector, *, force):
        asked.append((selector, force))
        return [Stopped(worker(), "drained")]

    monkeypatch.setattr(control, "stop", end)
    ended = upx("stop", "span", "42", "--force")
    assert asked == [("span", True), ("42", True)]
    assert ended.lines == ["span-1a2b3c4d-0 (span, process 42): drained"]
    upx("stop", "--all")
    assert asked[-1] == (stop_verb.EVERY, False)


def test_a_worker_that_is_still_at_work_is_said_to_be(upx, monkeypatch) -> None:
    monkeypatch.setattr(control, "stop", lambda *_, **__: [Stopped(worker(), "draining")])
    ended = upx("stop", "--all")
    assert ended.code == 7
    assert "still at work: span-1a2b3c4d-0" in ended.err


def test_stop_without_workers_is_no_failure_but_a_wrong_name_is(upx) -> None:
    assert upx("stop", "--all").code == 0
    ended = upx("stop", "nobody")
    assert ended.code == 2
    assert "no worker is called 'nobody'" in ended.err


def test_warm_loads_and_keeps(upx, host) -> None:
    ended = upx("warm", "span-x2", "--keep-alive", "forever")
    assert ended.code == 0
    assert ended.out.startswith("span-x2 is loaded on cpu (fp32) after ")
    assert "kept for ever" in ended.out
    assert host.requests[0].keep_alive is None
    assert upx("warm", "span", "-b", "tiny").code == 2


def test_bench_measures_each_number_of_workers(upx, host, monkeypatch) -> None:
    class Plan:
        def __init__(self, workers) -> None:
            self.workers = workers

    monkeypatch.setattr(FakeSession, "prepare", lambda session: Plan(session.host.requests[-1].workers or 2))
    ended = upx("bench", "--size", "16", "--repeat", "2", "--json")
    rows = records(ended)
    assert [request.workers for request in host.requests] == [1, 0]
    assert [session.ran.__len__() for session in host.sessions] == [3, 3]
    assert [row["workers"] for row in rows] == [1, 2]
    assert rows[0]["stages"] == {"inference": 0.8, "encode": 0.2}
    assert rows[0]["tiles_per_second"] == 8.0
    assert rows[0]["megapixels_per_second"] == pytest.approx(64 / 1e6 / 0.5, abs=1e-4)


@pytest.fixture
def healthy(host, monkeypatch):
    monkeypatch.setattr(_checks, "check_uv", lambda _: _checks.Check("uv", "ok", "uv 0.9"))
    monkeypatch.setattr(_checks, "check_sockets", lambda _: _checks.Check("sockets", "ok", "there"))
    return host


def test_a_doctor_finds_a_healthy_machine_healthy(upx, healthy) -> None:
    healthy.envs.records = [env_record()]
    ended = upx("doctor")
    assert ended.code == 0, ended.out
    assert "ok    environment span: /venvs/span-0123456789ab, 1 MiB, every file as installed" in ended.lines
    assert "fail" not in ended.out


def test_a_doctor_names_damage_with_the_step_that_mends_it(upx, healthy) -> None:
    healthy.envs.records = [env_record()]
    healthy.envs.damage = [Damage(Path("/venvs/span/numpy/core.so"), "numpy", "hash")]
    ended = upx("doctor", "-q")
    assert ended.code == 5
    assert ended.lines == [
        "fail  environment span: 1 files damaged, the first: /venvs/span/numpy/core.so (hash)",
        "      → upx setup span --repair",
    ]


def test_a_doctor_warns_of_what_a_prune_would_take_and_of_wrong_manifests(upx, healthy) -> None:
    healthy.catalog.errors = [ManifestError("two backends are called 'x'", hint="rename one")]
    healthy.envs.records = [
        env_record(state="incomplete", venv=None),
        env_record(superseded=True),
        env_record(state="building"),
    ]
    states = [(record["status"], record["name"]) for record in records(upx("doctor", "--json"))]
    assert ("fail", "backend") in states
    assert [status for status, name in states if name == "environment span"] == ["warn", "warn", "ok"]


def test_a_doctor_warns_of_a_worker_that_never_came_up(healthy, monkeypatch) -> None:
    monkeypatch.setattr(registry, "list_workers", lambda _: [worker(endpoint="", started=1000.0), worker()])
    (check,) = _checks.check_workers(healthy.settings)
    assert (check.status, check.hint) == ("warn", "upx stop span-1a2b3c4d-0 --force")


def test_a_folder_that_cannot_be_written_or_is_full_is_found(tmp_path, monkeypatch) -> None:
    assert _checks.check_folder("data", tmp_path / "not" / "yet").status == "ok"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
    assert _checks.check_folder("data", tmp_path).status == "warn"
    (tmp_path / "file").touch()
    check = _checks.check_folder("data", tmp_path / "file" / "below")
    assert check.status == "fail"
    assert "UPX_HOME" in check.hint


def test_uv_that_is_missing_or_broken_is_found(host, monkeypatch, tmp_path) -> None:
    from upx.venvs import uv

    broken = tmp_path / "uv"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv", lambda _: broken)
    assert _checks.check_uv(host.settings).status == "fail"

    def missing(_settings):
        raise UsageError("no uv", hint="install it")

    monkeypatch.setattr(uv, "find_uv", missing)
    assert _checks.check_uv(host.settings).hint == "install it"


def test_uv_and_the_sockets_of_this_machine_are_fine(host) -> None:
    assert _checks.check_uv(host.settings).status == "ok"
    assert _checks.check_sockets(host.settings).status == "ok"


def test_gpus_are_counted_and_none_is_no_fault() -> None:
    assert _checks.check_gpu([]).status == "ok"
    assert "2 of NVIDIA" in _checks.check_gpu(["a", "b"]).message
    assert _checks.check_shared_memory(Path("/nowhere")).status == "ok"
