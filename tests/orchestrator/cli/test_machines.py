"""``upx key`` and the part of ``upx worker`` that needs no box: what they keep, and what they print."""

from __future__ import annotations

import json

import pytest
from fakes import worker

from upx.errors import WorkerError
from upx.remote import visit
from upx.serving import draining
from upx.workers.control import Stopped
from upx_protocol.messages import Pong, Ready
from upx_protocol.version import NEWEST

A, B = "a" * 64, "b" * 64
ADDRESS = "tcp://192.168.1.20:7600"


def records(ended) -> list[dict]:
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.lines]


@pytest.mark.parametrize("words", [["key"], ["key", "show"]])
def test_a_machine_shows_its_two_public_keys_and_whom_it_lets_in(upx, words) -> None:
    upx("key", "allow", "laptop", A)
    client, server, laptop = records(upx(*words, "--json"))
    assert (client["which"], server["which"], laptop["name"]) == ("client", "server", "laptop")
    assert client["key"] in upx(*words).out


def test_a_key_is_replaced_only_when_that_is_said(upx) -> None:
    (before, _) = records(upx("key", "show", "--json"))
    refused = upx("key", "new", "client")
    assert (refused.code, "upx key new client --yes replaces it" in refused.err) == (2, True)
    (after,) = records(upx("key", "new", "client", "--yes", "--json"))
    assert after["key"] != before["key"]
    assert records(upx("key", "show", "--json"))[0]["key"] == after["key"]


@pytest.mark.parametrize(
    ("which", "words"),
    [("client", "every box must be told of it: upx key allow"), ("server", "keeps its old key until systemctl reload")],
)
def test_who_replaces_a_key_is_told_who_has_to_know(upx, which, words) -> None:
    assert words in upx("key", "new", which, "--yes").err
    assert upx("key", "new", which, "--yes", "--json").err == ""


def test_clients_are_allowed_and_revoked_by_name(upx) -> None:
    (allowed,) = records(upx("key", "allow", "laptop", A.upper(), "--json"))
    assert (allowed["name"], allowed["key"], allowed["state"]) == ("laptop", A, "allowed")
    assert upx("key", "allow", "laptop", B).code == 2
    (revoked,) = records(upx("key", "revoke", "laptop", "--json"))
    assert (revoked["key"], revoked["state"]) == (A, "revoked")
    assert upx("key", "revoke", "laptop").code == 2


def test_no_verb_prints_a_secret_key(upx, host) -> None:
    said = "".join(upx(*words).out for words in (["key", "show"], ["key", "new", "server", "--yes"], ["key", "--json"]))
    for name in ("client", "server"):
        assert json.loads((host.settings.data_dir / "keys" / f"{name}.json").read_text())["secret"] not in said


def test_a_box_can_be_added_while_it_is_off(upx) -> None:
    (added,) = records(upx("worker", "add", "attic", ADDRESS, "--key", A, "--offline", "--json"))
    assert (added["state"], added["backend"], added["endpoint"]) == ("added", "", ADDRESS)
    for words in (["worker"], ["worker", "list"]):
        assert [each["key"] for each in records(upx(*words, "--json"))] == [A]
    assert [each["state"] for each in records(upx("worker", "rm", "attic", "--json"))] == ["removed"]
    assert "no boxes are known" in upx("worker", "list").err


def test_a_pinned_key_is_not_replaced(upx) -> None:
    upx("worker", "add", "attic", ADDRESS, "--key", A, "--offline")
    refused = upx("worker", "add", "attic", ADDRESS, "--key", B, "--offline")
    assert (refused.code, "upx worker rm attic" in refused.err) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ["worker", "add", "any", ADDRESS, "--key", A],
        ["worker", "add", "attic", "attic:7600", "--key", A],
        ["worker", "add", "attic", ADDRESS, "--key", "short"],
        ["worker", "add", "attic", ADDRESS],
        ["worker", "rm", "attic"],
        ["worker", "test"],
        ["worker", "test", "attic"],
        ["key", "allow", "a b", A],
        ["key", "allow", "laptop", "short"],
        ["key", "new", "both"],
    ],
)
def test_a_wrong_word_is_a_wrong_request(upx, words) -> None:
    ended = upx(*words)
    assert ended.code == 2
    assert ended.err.startswith("upx: ")
    assert "Traceback" not in ended.err


def test_a_box_that_is_off_hides_no_other(upx, monkeypatch) -> None:
    for name, address in (("attic", ADDRESS), ("cellar", ADDRESS.replace("7600", "7601"))):
        upx("worker", "add", name, address, "--key", A, "--offline")

    def survey(box, _settings):
        yield visit.Visit(box, (), NEWEST, Ready("cpu"), Pong(0))
        if box.name == "attic":
            raise WorkerError("attic cannot be reached: its second worker is off")

    monkeypatch.setattr(visit, "survey", survey)
    ended = upx("worker", "test", "--json")
    assert [json.loads(line)["name"] for line in ended.lines] == ["attic", "cellar"]
    assert ended.code == 7
    assert "its second worker is off" in ended.err


@pytest.mark.parametrize(("how", "code"), [("drained", 0), ("draining", 7)])
def test_a_box_that_is_still_at_work_is_not_drained(upx, monkeypatch, how, code) -> None:
    other = worker(ordinal=1)
    monkeypatch.setattr(draining, "drain_all", lambda _: [Stopped(worker(), how), Stopped(other, "drained")])
    ended = upx("worker", "drain", "--json")
    assert ended.code == code
    assert [json.loads(line)["outcome"] for line in ended.lines[:2]] == [how, "drained"]
    assert (f"still at work: {worker().name}\n" in ended.err) == (how == "draining")


def test_where_nothing_is_served_nothing_is_drained(upx) -> None:
    ended = upx("worker", "drain")
    assert (ended.code, ended.out) == (0, "")
    assert "nothing is served here" in ended.err
