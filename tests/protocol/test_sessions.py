"""The book of hosts: credits, fair queues, silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upx_protocol.messages import Buffer, Upscale
from upx_protocol.sessions import Session, Sessions, Ticket
from upx_protocol.turns import MAX_AWAY, Turns


def ticket(session: str, number: int, *, side: int = 8, tiles: int = 1) -> Ticket:
    buffer = Buffer("uint8", (side, side, 3), side * side * 3)
    return Ticket(session, Upscale(number, 0, "load", (buffer,) * tiles), (b"",) * tiles)


def book(*, tiles: int = 4, nbytes: int = 1000) -> Sessions:
    return Sessions(credit_tiles=tiles, credit_bytes=nbytes)


def test_credit_shrinks_with_the_number_of_hosts_and_never_below_one_tile() -> None:
    sessions = book(tiles=4, nbytes=1000)
    given_out = [sessions.open(bytes([n]), str(n), 0.0) for n in range(6)]
    assert [session.credit_tiles for session in given_out] == [4, 2, 1, 1, 1, 1]
    assert [session.credit_bytes for session in given_out] == [1000, 500, 333, 250, 200, 166]


def test_a_lone_tile_is_in_credit_however_large_and_a_second_one_is_not() -> None:
    session = book(tiles=4, nbytes=100).open(b"a", "a", 0.0)
    assert session.charge(1, 10_000)
    assert not session.charge(1, 1)
    session.refund(1, 10_000)
    assert not session.charge(2, 101)
    assert session.charge(2, 100)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 300)), max_size=50))
def test_what_is_in_flight_never_exceeds_the_credit_but_for_a_lone_tile(batches: list[tuple[int, int]]) -> None:
    session = book(tiles=5, nbytes=500).open(b"a", "a", 0.0)
    flying: list[tuple[int, int]] = []
    for tiles, nbytes in batches:
        if session.charge(tiles, nbytes):
            flying.append((tiles, nbytes))
        elif flying:
            session.refund(*flying.pop(0))
        total = sum(n for n, _ in flying), sum(b for _, b in flying)
        assert total[0] <= 5
        assert total[1] <= 500 or total[0] == 1
        assert (session.spent_tiles, session.spent_bytes) == total


def test_hosts_are_served_by_pixels_not_by_batches() -> None:
    sessions = book()
    large, small = sessions.open(b"a", "large", 0.0), sessions.open(b"b", "small", 0.0)
    for number in range(4):
        sessions.push(large, ticket("large", number, side=20))
    for number in range(12):
        sessions.push(small, ticket("small", number, side=10))
    order = _drain(sessions)
    assert order.count("small") == 12
    # One large tile has the pixels of four small ones.
    first = order[:10]
    assert (first.count("large"), first.count("small")) == (2, 8)


def test_a_host_that_paused_has_no_claim_on_what_it_did_not_use() -> None:
    sessions = book()
    worked, paused = sessions.open(b"a", "worked", 0.0), sessions.open(b"b", "paused", 0.0)
    for number in range(20):
        sessions.push(worked, ticket("worked", number))
    for _ in range(10):
        sessions.pop()
    for number in range(10):
        sessions.push(paused, ticket("paused", number))
    first = _drain(sessions)[:6]
    assert 2 <= first.count("worked") <= 4


def test_a_client_gets_no_more_for_having_many_sessions_and_shares_its_part_among_them() -> None:
    sessions = book()
    lone = sessions.open(b"x", "lone", 0.0, "one")
    many = [sessions.open(bytes([n]), str(n), 0.0, "many") for n in range(10)]
    for number in range(100):
        for session in (lone, *many):
            sessions.push(session, ticket(session.name, number))
    order = _drain(sessions)[:100]
    assert order.count("lone") == 50
    assert [order.count(session.name) for session in many] == [5] * 10


def test_who_comes_while_nobody_waits_does_not_get_everything_until_it_has_caught_up() -> None:
    sessions = book()
    old = sessions.open(b"a", "old", 0.0)
    for number in range(50):
        # One at a time: its queue is empty whenever somebody looks.
        sessions.push(old, ticket("old", number))
        sessions.pop()
    new = sessions.open(b"b", "new", 0.0)
    for number in range(20):
        sessions.push(new, ticket("new", number))
        sessions.push(old, ticket("old", 100 + number))
    first = _drain(sessions)[:10]
    assert 4 <= first.count("old") <= 6


def test_a_client_that_leaves_and_returns_is_not_served_before_those_who_stayed() -> None:
    sessions = book()
    stayed = sessions.open(b"a", "stayed", 0.0, "a")
    for number in range(40):
        sessions.push(stayed, ticket("stayed", number))
    order = []
    for number in range(10):
        fresh = sessions.open(b"b", f"fresh{number}", 0.0, "b")
        sessions.push(fresh, ticket(fresh.name, 0))
        sessions.push(fresh, ticket(fresh.name, 1))
        order += [_next(sessions) for _ in range(2)]
        sessions.close(fresh)
    assert order.count("stayed") >= 9


@pytest.mark.parametrize(("side", "turns"), [(8, 15), (16, 6)])
def test_a_client_that_greets_again_with_each_batch_gets_no_more_than_its_share(side: int, turns: int) -> None:
    sessions = book()
    stayed = sessions.open(b"a", "stayed", 0.0, "a")
    for number in range(40):
        sessions.push(stayed, ticket("stayed", number))
    order = []
    for number in range(30):
        fresh = sessions.open(b"b", f"fresh{number}", 0.0, "b")
        sessions.push(fresh, ticket(fresh.name, 0, side=side))
        order.append(_next(sessions))
        sessions.close(fresh)
    assert abs(30 - order.count("stayed") - turns) <= 1


def test_of_those_who_left_a_few_are_remembered_and_only_until_the_others_have_caught_up() -> None:
    turns = Turns()
    for number in range(10 * MAX_AWAY):
        turns.come(str(number))
        turns.give(str(number), 1 + number)
        turns.forget(str(number))
    assert len(turns._away) == MAX_AWAY
    turns.come("stayed")
    turns.give("stayed", 10 * MAX_AWAY - 1)
    turns.choose(["stayed"])
    assert list(turns._away) == [str(10 * MAX_AWAY - 1)]


def test_no_more_is_begun_for_a_client_whose_results_wait_to_be_read() -> None:
    sessions = Sessions(credit_tiles=4, credit_bytes=1000, most_unsent=100)
    full, sibling = sessions.open(b"a", "full", 0.0, "a"), sessions.open(b"b", "sibling", 0.0, "a")
    other = sessions.open(b"c", "other", 0.0, "c")
    for session in (full, sibling, other):
        sessions.push(session, ticket(session.name, 1))
    full.unsent = 101
    assert _drain(sessions) == ["other"]
    assert sessions.queued == 2
    full.unsent = 100
    assert sorted(_drain(sessions)) == ["full", "sibling"]


def test_a_client_that_did_not_read_does_not_get_afterwards_what_it_missed() -> None:
    sessions = Sessions(credit_tiles=4, credit_bytes=1000, most_unsent=100)
    full, other = sessions.open(b"a", "full", 0.0, "a"), sessions.open(b"c", "other", 0.0, "c")
    for number in range(40):
        sessions.push(full, ticket("full", number))
        sessions.push(other, ticket("other", number))
    full.unsent = 101
    assert [_next(sessions) for _ in range(20)] == ["other"] * 20
    full.unsent = 0
    assert 4 <= [_next(sessions) for _ in range(10)].count("full") <= 6


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), max_size=60))
def test_every_queued_batch_is_served_once_and_in_its_hosts_order(arrivals: list[tuple[int, int]]) -> None:
    sessions = book()
    hosts = [sessions.open(bytes([n]), str(n), 0.0) for n in range(4)]
    for number, (host, side) in enumerate(arrivals):
        sessions.push(hosts[host], ticket(str(host), number, side=side))
    served = []
    while True:
        taken = sessions.pop()
        if taken is None:
            break
        served.append((int(taken.session), taken.request.id))
    assert sorted(number for _, number in served) == list(range(len(arrivals)))
    for host in range(4):
        mine = [number for owner, number in served if owner == host]
        assert mine == sorted(mine)


def test_a_withdrawn_batch_is_not_served_and_an_unknown_one_is_none() -> None:
    sessions = book()
    session = sessions.open(b"a", "a", 0.0)
    for number in range(3):
        sessions.push(session, ticket("a", number))
    assert sessions.withdraw(session, (1, 0)) is not None
    assert sessions.withdraw(session, (1, 0)) is None
    assert sessions.withdraw(session, (2, 1)) is None
    assert sessions.queued == 2


def test_silence_counts_from_the_last_word_but_not_while_the_worker_was_deaf() -> None:
    sessions = book()
    session = sessions.open(b"a", "a", 0.0)
    assert sessions.silent(4.9, 5.0) == []
    assert sessions.silent(5.1, 5.0) == [session]
    sessions.forgive(3.0)
    assert sessions.silent(5.1, 5.0) == []


def test_a_session_belongs_to_its_peer() -> None:
    sessions = book()
    session = sessions.open(b"a", "name", 0.0)
    assert sessions.find(b"a", "name") is session
    assert sessions.find(b"b", "name") is None
    assert sessions.find(b"a", "other") is None
    sessions.close(session)
    assert sessions.named("name") is None


def test_an_old_session_does_not_close_the_one_that_followed() -> None:
    sessions = book()
    old = sessions.open(b"a", "old", 0.0)
    new = sessions.open(b"a", "new", 1.0)
    sessions.close(old)
    assert sessions.all() == [new]
    assert (sessions.named("old"), sessions.named("new")) == (None, new)


def _next(sessions: Sessions) -> str:
    taken = sessions.pop()
    assert taken is not None
    return taken.session


def _drain(sessions: Sessions) -> list[str]:
    order = []
    while True:
        taken = sessions.pop()
        if taken is None:
            return order
        order.append(taken.session)
        assert isinstance(sessions.named(taken.session), Session)
