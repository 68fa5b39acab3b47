"""What is told of those who were turned away: soon, and never more than a disk can bear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx_protocol.refusals import MAX_TOLD, TELL_S, Refusals

if TYPE_CHECKING:
    import pytest


def test_the_first_is_told_at_once_and_the_others_by_their_number(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(0.0)
    for number in range(1000):
        refusals.note("a key", "1.2.3.4", f"key {number}")
    assert caplog.messages == ["refused: a key from 1.2.3.4 (key 0)"]
    refusals.tell(TELL_S - 1)
    assert len(caplog.messages) == 1
    refusals.tell(TELL_S + 1)
    assert caplog.messages[1:] == ["refused: a key from 1.2.3.4, 999 times more"]
    refusals.tell(2 * TELL_S + 2)
    assert len(caplog.messages) == 2, "nobody has come since"


def test_a_thousand_addresses_are_not_told_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(0.0)
    for number in range(1000):
        refusals.note("a key", f"address {number}")
    refusals.tell_all()
    assert len(caplog.messages) == MAX_TOLD + 2
    assert caplog.messages[-1] == f"refused: a key from others, {1000 - MAX_TOLD - 1} times more"
