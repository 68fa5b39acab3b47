"""How fast a worker is, by its own counters and its own clock."""

from __future__ import annotations

import pytest

from upx.cli._pace import WINDOW_S, Pace, Paces, total
from upx_protocol.messages import Pong

MP = 1_000_000


def pong(age: float, tiles: int = 0, *, pixels: int | None = None, busy: float = 0.0) -> Pong:
    return Pong(1, tiles_done=tiles, pixels_done=tiles * MP if pixels is None else pixels, busy_s=busy, age_s=age)


def heard(*pongs: Pong | None) -> Pace | None:
    paces = Paces()
    for each in pongs:
        paces.hear({"a": each})
    return paces.of("a")


def test_one_answer_tells_no_pace() -> None:
    assert heard(pong(5.0, 100)) is None
    assert Paces().of("nobody") is None


def test_two_answers_tell_what_was_done_between_them() -> None:
    assert heard(pong(5.0, 100, busy=4.0), pong(7.0, 104, busy=5.0)) == Pace(2.0, 2.0, 0.5)


def test_megapixels_are_counted_apart_from_tiles_since_these_differ_in_size() -> None:
    pace = heard(pong(5.0, 10, pixels=0), pong(6.0, 12, pixels=MP // 2))
    assert pace is not None
    assert (pace.megapixels, pace.tiles) == (0.5, 2.0)


def test_a_pace_is_an_average_over_ten_seconds_and_no_more() -> None:
    slow = [pong(float(second), second // 5, busy=float(second)) for second in range(61)]
    pace = heard(*slow)
    assert pace is not None
    assert pace.tiles == pytest.approx(0.2), "one tile in five seconds, whenever one looks"
    assert pace.busy == 1.0
    ended = heard(*slow, *(pong(60.0 + second, 12, busy=60.0) for second in range(1, int(WINDOW_S) + 1)))
    assert ended == Pace(0.0, 0.0, 0.0)


def test_looks_that_are_far_apart_are_each_an_average_of_their_own() -> None:
    assert heard(pong(10.0, 0), pong(70.0, 60), pong(130.0, 180)) == Pace(2.0, 2.0, 0.0)


def test_the_same_answer_twice_is_one() -> None:
    assert heard(pong(5.0), pong(5.0)) is None


def test_another_process_of_the_same_name_begins_anew() -> None:
    assert heard(pong(50.0, 900), pong(51.0, 901), pong(1.0, 0)) is None
    assert heard(pong(50.0, 900), pong(60.0, 3)) is None
    assert heard(pong(50.0, 900), pong(1.0, 0), pong(2.0, 3)) == Pace(3.0, 3.0, 0.0)


def test_who_does_not_answer_has_no_pace() -> None:
    assert heard(pong(5.0), pong(6.0, 1), None) is None
    paces = Paces()
    paces.hear({"a": pong(5.0), "b": pong(5.0)})
    paces.hear({"b": pong(6.0, 1)})
    assert paces.of("a") is None
    assert paces.of("b") == Pace(1.0, 1.0, 0.0)


def test_all_together_are_the_sums_and_the_mean_of_how_busy_they_are() -> None:
    assert total([Pace(1.5, 3.0, 1.0), Pace(0.5, 1.0, 0.5)]) == Pace(2.0, 4.0, 0.75)
    assert total([]) == Pace(0.0, 0.0, 0.0)


def test_a_worker_of_an_older_release_tells_none() -> None:
    assert heard(Pong(1, tiles_done=3), Pong(2, tiles_done=9)) is None


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [
        (pong(1.0), Pong(1, tiles_done=2**63 - 1, pixels_done=2**63 - 1, busy_s=1e308, age_s=1.0 + 1e-12), False),
        (pong(1.0), Pong(1, tiles_done=2**63 - 1, pixels_done=2**63 - 1, busy_s=1e308, age_s=1.01), True),
        (pong(1.0, 5), Pong(1, tiles_done=5, pixels_done=-1, busy_s=-1e308, age_s=1e308), True),
        (pong(1.0, busy=1e308), Pong(1, busy_s=-1e308, age_s=2.0), True),
    ],
)
def test_nonsense_of_a_box_is_a_finite_number_or_none(first, second, known) -> None:
    pace = heard(first, second)
    assert (pace is not None) == known
    assert pace is None or all(0 <= each < 1e18 for each in (pace.megapixels, pace.tiles, pace.busy))
