from __future__ import annotations

import time
from email.message import Message
from email.utils import formatdate

import pytest

from upx.assets.fetch import Network
from upx.assets.fetch.failures import DropError, FailedError
from upx.assets.fetch.judge import Body, Heard, Resume, Whole, judge, may_resume, retry_after, validator
from upx.assets.fetch.tries import MAX_PAUSE_S, Tries


def headers(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


def heard(status: int, length: int | None = None, *, open_ended: bool = False, **fields: str) -> Heard:
    return Heard(status, headers(**fields), length, open_ended)


def test_a_whole_answer_starts_at_the_beginning_even_if_the_rest_was_asked_for() -> None:
    assert judge(heard(200, 9), offset=5, page_expected=False) == Body(0, 9, vouched=True)
    assert judge(heard(200, open_ended=True), offset=0, page_expected=False) == Body(0, None, vouched=False)


@pytest.mark.parametrize(
    ("text", "body"),
    [("bytes 5-8/9", Body(5, 9, vouched=True)), ("bytes 5-8/*", Body(5, None, vouched=False))],
)
def test_a_continuation_says_where_it_begins_and_ends(text: str, body: Body) -> None:
    assert judge(heard(206, Content_Range=text), offset=5, page_expected=False) == body


@pytest.mark.parametrize(
    "text", ["", "bytes 4-8/9", "bytes 6-8/9", "bytes 5-4/9", "bytes 5-9/9", "items 5-8/9", "bytes 5-8/-1", "5-8/9"]
)
def test_any_other_continuation_starts_anew(text: str) -> None:
    with pytest.raises(DropError) as caught:
        judge(heard(206, Content_Range=text), offset=5, page_expected=False)
    assert caught.value.anew


def test_nothing_more_means_whole_where_the_lengths_agree() -> None:
    assert judge(heard(416, Content_Range="bytes */5"), offset=5, page_expected=False) == Whole()
    for text in ("", "bytes */4", "bytes 0-4/5", "bytes */x"):
        with pytest.raises(DropError) as caught:
            judge(heard(416, Content_Range=text), offset=5, page_expected=False)
        assert caught.value.anew
    with pytest.raises(FailedError):
        judge(heard(416), offset=0, page_expected=False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ETag": '"a"'}, '"a"'),
        ({"ETag": 'W/"a"'}, ""),
        ({"ETag": "a"}, ""),
        ({"ETag": '"a"b"'}, ""),
        ({"ETag": f'"{"a" * 300}"'}, ""),
        ({"Last_Modified": "Tue, 15 Nov 1994 12:45:26 GMT"}, "Tue, 15 Nov 1994 12:45:26 GMT"),
        ({"ETag": 'W/"a"', "Last_Modified": "yesterday"}, ""),
        ({"Last_Modified": "Tue, 15 Nov 1994\r\n 12:45:26 GMT"}, ""),
    ],
)
def test_only_what_tells_two_states_apart_is_remembered(fields: dict[str, str], expected: str) -> None:
    assert validator(headers(**fields)) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("0", 0.0), ("999", 60.0), ("9" * 400, 60.0), ("-3", None), ("soon", None), ("", None), ("²", None)],
)
def test_the_patience_asked_for_is_kept_within_bounds(text: str, seconds: float | None) -> None:
    assert retry_after(headers(Retry_After=text), now=0.0) == seconds


def test_the_patience_asked_for_may_be_a_date() -> None:
    now = float(int(time.time()))
    assert retry_after(headers(Retry_After=formatdate(now + 20, usegmt=True)), now=now) == 20.0
    assert retry_after(headers(Retry_After=formatdate(now - 20, usegmt=True)), now=now) == 0.0


def test_a_part_is_continued_where_its_content_or_its_server_can_vouch() -> None:
    note = {"source": "s", "validator": '"v"', "sha256": "h"}
    assert may_resume({}, wanted="w", stated="", mark="x") == Resume(allowed=True)
    assert may_resume(note, wanted="", stated="h", mark="x") == Resume(allowed=True)
    assert may_resume(note, wanted="", stated="", mark="s") == Resume(allowed=True, if_range='"v"')
    assert may_resume(note, wanted="", stated="other", mark="x") == Resume(allowed=False)
    assert may_resume({**note, "validator": ""}, wanted="", stated="", mark="s") == Resume(allowed=False)


def test_pauses_double_with_some_chance_up_to_a_most_and_begin_again_after_progress() -> None:
    tries = Tries(Network(tries=12, backoff=0.5))
    pauses = [tries.after(DropError("x"), 0) for _ in range(10)]
    for number, pause in enumerate(pauses):
        whole = min(0.5 * 2**number, MAX_PAUSE_S)
        assert whole / 2 <= pause <= whole
    assert tries.after(DropError("x"), 1) <= 0.5
    assert tries.after(DropError("x", pause=7.0), 1) == 7.0
