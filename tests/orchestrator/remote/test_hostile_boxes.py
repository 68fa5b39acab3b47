"""Boxes that lie about themselves: they cost their own tiles and nobody else's, and never a wrong picture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from upx.config import Settings
from upx.errors import ProtocolVersionError, WorkerError
from upx.remote.boxes import Book, Box
from upx.remote.keys import KeyRing
from upx.remote.sites import places
from upx.remote.visit import visit
from upx.workers import pool as pools
from upx.workers.channel import key_text, new_key_pair
from upx.workers.plan import LoadPlan, Timeouts
from upx.workers.words import MOST_PORTS
from upx_protocol.codec import encode
from upx_protocol.curve import CurveKeys
from upx_protocol.fake_worker import Conduct, FakeWorker
from upx_protocol.messages import Message, Welcome
from upx_protocol.version import Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upx_protocol.arrays import Bytes

TILE = np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)
QUICK = Timeouts(far_hello=2.0, reach=1.0, away=2.0)


def telling(**changes: Any) -> Callable[[Message, list[Bytes]], list[Bytes]]:
    """A box that says something else of itself when it welcomes."""

    def tamper(message: Message, parts: list[Bytes]) -> list[Bytes]:
        if not isinstance(message, Welcome):
            return parts
        return list(encode(replace(message, **changes), session=message.session))

    return tamper


class Client:
    """A machine that knows boxes by name and uses them together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.book, self.ring = Book(settings), KeyRing(settings)
        self.serving: list[FakeWorker] = []

    def knows(self, name: str, conduct: Conduct) -> FakeWorker:
        """Start a box, and add it."""
        public, secret = new_key_pair()
        keys = CurveKeys(public, secret, "")
        box = FakeWorker("tcp://127.0.0.1:*", conduct, curve=keys).__enter__()
        self.serving.append(box)
        self.book.add(Box(name, box.endpoint, key_text(public), "fake"))
        return box

    def up(self, *names: str, scale: int = 4) -> np.ndarray:
        plan = LoadPlan(backend="fake", model="fake-x4", scale=scale, workers=0)
        where = places(names, "fake", self.settings)
        with pools.WorkerPool(plan, self.settings, timeouts=QUICK, sites=where.sites) as pool:
            pool.start()
            return pool.submit([TILE], out_dtype="uint8", job=1)[0].result(30).array.copy()

    def seats(self, *names: str) -> int:
        """Workers for which there is room after all of those boxes have told of themselves."""
        plan = LoadPlan(backend="fake", model="fake-x4", workers=0)
        with pools.WorkerPool(
            plan, self.settings, timeouts=QUICK, sites=places(names, "fake", self.settings).sites
        ) as p:
            p.start()
            p.ready(10)
            return len(p._supervisor._seats)


@pytest.fixture
def client(upx_env, tmp_path) -> Iterator[Client]:
    made = Client(Settings.from_env({**upx_env, "UPX_HOME": str(tmp_path / "laptop")}))
    yield made
    for box in made.serving:
        box.__exit__()


@pytest.mark.parametrize("ports", [(-1,), (0,), (65_536, 70_000), (1 << 40,)])
def test_ports_that_are_none_are_passed_over(client, ports) -> None:
    client.knows("liar", Conduct(tamper=telling(ports=ports)))
    assert np.array_equal(client.up("liar"), TILE.repeat(4, 0).repeat(4, 1))


def test_a_box_has_so_many_workers_and_no_more(client) -> None:
    client.knows("liar", Conduct(tamper=telling(ports=tuple(range(2000, 2200)))))
    assert client.seats("liar") == MOST_PORTS


def test_a_port_that_is_told_twice_is_one_worker(client) -> None:
    client.knows("liar", Conduct(tamper=telling(ports=(2001, 2001, 2001))))
    assert client.seats("liar") == 2


@pytest.mark.parametrize("scale", [40, 3, 1])
def test_a_box_that_enlarges_by_another_factor_is_refused(client, scale) -> None:
    client.knows("liar", Conduct(scale=scale))
    with pytest.raises(WorkerError, match=f"enlarges {scale} times, not 4"):
        client.up("liar")


def test_a_box_of_another_release_is_named_by_a_job_and_by_a_visit_in_the_same_words(client) -> None:
    client.knows("old", Conduct(versions=(Version(7, 1), Version(8, 2))))
    with pytest.raises(ProtocolVersionError, match=r"old speaks protocol 7\.1 to 8\.2; this host speaks 1\.") as used:
        client.up("old")
    with pytest.raises(ProtocolVersionError) as visited:
        visit(client.book.get("old"), client.settings)
    assert (str(visited.value), visited.value.hint) == (str(used.value), used.value.hint)


def test_a_box_that_lies_leaves_the_work_to_an_honest_one(client) -> None:
    client.knows("liar", Conduct(scale=2, tamper=telling(ports=(-1, 0, 99_999))))
    client.knows("honest", Conduct())
    assert np.array_equal(client.up("liar", "honest"), TILE.repeat(4, 0).repeat(4, 1))


def test_an_address_that_does_not_resolve_is_said_and_leaves_the_work_to_others(client) -> None:
    client.knows("honest", Conduct())
    client.book.add(Box("gone", "tcp://no.such.machine.invalid:7600", "ab" * 32, "fake"))
    assert np.array_equal(client.up("gone", "honest"), TILE.repeat(4, 0).repeat(4, 1))
    with pytest.raises(WorkerError, match="gone"):
        client.up("gone")
