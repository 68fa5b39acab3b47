"""A visit to a box that may say anything: what is taken from it, and how it is shown."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from upx.config import Settings
from upx.errors import WorkerError
from upx.remote.boxes import Box
from upx.remote.keys import KeyRing
from upx.remote.visit import survey, visit
from upx.workers.channel import key_text, new_key_pair
from upx_protocol.codec import encode
from upx_protocol.curve import CurveKeys
from upx_protocol.messages import Echo, Ready, Reject, Welcome
from upx_protocol.testing import Conduct, FakeWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx_protocol.messages import Message

ESCAPES = "\x1b[2J\x1b]0;mine\x07\nsecond line\u202e"


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings.from_env({**os.environ, "UPX_HOME": str(tmp_path)})


def saying(change: Callable[[Message], Message], **conduct) -> Conduct:
    def tamper(message: Message, parts: list) -> list:
        changed = change(message)
        session = getattr(message, "session", "")
        return parts if changed is message else list(encode(changed, session=session))

    return Conduct(tamper=tamper, **conduct)


def keys_for(settings: Settings) -> tuple[CurveKeys, str]:
    """A box's keys, and its public one as people see it."""
    public, secret = new_key_pair()
    return CurveKeys(public, secret, KeyRing(settings).client().public), key_text(public)


def test_words_of_a_box_hold_nothing_that_a_terminal_obeys(settings) -> None:
    def nasty(message: Message) -> Message:
        if isinstance(message, Welcome):
            return replace(message, backend=f"span{ESCAPES}")
        if isinstance(message, Ready):
            return replace(message, device=ESCAPES, device_name="x" * 10_000, models=(ESCAPES,) * 3)
        return message

    keys, shown = keys_for(settings)
    with FakeWorker("tcp://127.0.0.1:*", saying(nasty), curve=keys) as worker:
        found = visit(Box("attic", worker.endpoint, shown), settings)
    words = (found.box.backend, found.ready.device, found.ready.device_name, *found.ready.models)
    assert all(word.isprintable() and len(word) <= 64 for word in words), words
    assert found.box.backend.startswith("span")


def test_ports_that_are_none_are_not_visited(settings) -> None:
    def nasty(message: Message) -> Message:
        return replace(message, ports=(-1, 0, 70_000, 2**60)) if isinstance(message, Welcome) else message

    keys, shown = keys_for(settings)
    with FakeWorker("tcp://127.0.0.1:*", saying(nasty), curve=keys) as worker:
        (found,) = list(survey(Box("attic", worker.endpoint, shown), settings, measure=False))
    assert found.box.endpoint == worker.endpoint


@pytest.mark.timeout(20)
def test_what_a_box_gives_no_credit_for_is_not_measured(settings) -> None:
    def poor(message: Message) -> Message:
        return replace(message, credit_bytes=1000) if isinstance(message, Welcome) else message

    keys, shown = keys_for(settings)
    with FakeWorker("tcp://127.0.0.1:*", saying(poor), curve=keys) as worker:
        found = visit(Box("attic", worker.endpoint, shown), settings, measure=True)
        assert found.rate == 0
        assert not any(isinstance(each, Echo) for each in worker.heard)


def test_a_refusal_is_told_in_the_words_of_the_box_on_one_line(settings) -> None:
    def nasty(message: Message) -> Message:
        return replace(message, message=ESCAPES) if isinstance(message, Reject) else message

    keys, shown = keys_for(settings)
    with (
        FakeWorker("tcp://127.0.0.1:*", saying(nasty, refuse="busy"), curve=keys) as worker,
        pytest.raises(WorkerError, match="attic refuses us") as caught,
    ):
        visit(Box("attic", worker.endpoint, shown), settings)
    assert str(caught.value).isprintable()
