"""Who goes when too many stand before the door."""

from __future__ import annotations

import pytest

from upx_protocol.strangers import Strangers


def crowd(most: int, *peers: tuple[int, str]) -> Strangers:
    made = Strangers(most)
    for fd, address in peers:
        made.add(fd, (address, 50_000 + fd))
    return made


def test_there_is_room_for_as_many_as_were_said() -> None:
    assert crowd(2, (1, "a"), (2, "a")).one_too_many() is None


def test_the_oldest_of_the_largest_crowd_goes_and_not_who_came_alone() -> None:
    made = crowd(3, (1, "lonely"), (2, "crowd"), (3, "crowd"), (4, "crowd"))
    assert made.one_too_many() == (2, ("crowd", 50_002))
    assert made.one_too_many() is None
    assert len(made) == 3


@pytest.mark.parametrize(
    ("crowding", "lonely"),
    [
        (["2001:db8::1", "2001:db8::2", "2001:db8::3:0:0:1"], "2001:db8:0:1::1"),
        (["::ffff:192.0.2.1", "192.0.2.1"], "::ffff:192.0.2.2"),
    ],
    ids=["one /64", "one IPv4"],
)
def test_a_site_with_many_addresses_is_one_crowd(crowding: list[str], lonely: str) -> None:
    made = crowd(len(crowding), (0, lonely), *enumerate(crowding, 1))
    assert made.one_too_many() == (1, (crowding[0], 50_001))
    assert made.pop(0) == (lonely, 50_000)


def test_who_has_spoken_or_left_is_no_stranger_any_more() -> None:
    made = crowd(1, (1, "a"), (2, "b"))
    assert made.pop(1) == ("a", 50_001)
    assert made.pop(1) is None
    assert made.one_too_many() is None


def test_a_descriptor_that_comes_again_is_another_connections() -> None:
    made = crowd(1, (1, "a"), (1, "b"))
    assert len(made) == 1
    assert made.pop(1) == ("b", 50_001)


def test_each_is_looked_at_in_its_turn() -> None:
    made = crowd(5, (1, "a"), (2, "b"), (3, "a"))
    assert [[fd for fd, _ in made.some(2)] for _ in range(3)] == [[1, 2], [3, 1], [2, 3]]
    assert len(made.some(9)) == 3
