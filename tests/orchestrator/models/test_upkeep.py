"""The store stays below its cap: the least recently used goes first, never one in use or pinned."""

from __future__ import annotations

import os
import time

import pytest
from shelf_kit import make_shelf
from weights_kit import asset, model, receipt

from upx.models import shelf as shelves
from upx.models.upkeep import collect, make_room, remove, set_pin, usage

SIZE = 1000
NAMES = ("old", "middle", "new")


@pytest.fixture
def shelf(tmp_path):
    made = make_shelf(tmp_path)
    for age, name in enumerate(reversed(NAMES)):
        put(made, name, name.encode().ljust(SIZE))
        moment = time.time() - 3600 * (age + 1)
        os.utime(made.store.root / "uses" / name, (moment, moment))
    return made


def put(shelf, name, content):
    with shelf.store.making() as made:
        made.write_bytes(content)
        shelf.store.put(made, receipt(model(name), asset("weights", content), content))


def test_the_least_recently_used_goes_first_and_no_more_than_has_to(shelf):
    done = make_room(shelf, 2 * SIZE)
    assert (done.evicted, done.freed) == (("old",), SIZE)
    assert shelf.store.models() == ["middle", "new"]


def test_one_in_use_and_one_pinned_stay(shelf):
    set_pin(shelf, "old", pinned=True)
    with shelf.store.use("new"):
        os.utime(shelf.store.root / "uses" / "new", (1, 1))
        done = make_room(shelf, 0)
    assert done.evicted == ("middle",)
    assert set(done.kept) == {"old", "new"}
    set_pin(shelf, "old", pinned=False)
    assert set(make_room(shelf, 0).evicted) == {"old", "new"}


def test_a_model_that_a_worker_holds_stays(shelf, monkeypatch):
    monkeypatch.setattr(shelves.Shelf, "running", lambda _: {"old"})
    assert make_room(shelf, 0).evicted == ("middle", "new")
    assert remove(shelf, ["old"]).kept == ("old",)


def test_use_makes_a_model_the_most_recently_used(shelf):
    with shelf.store.use("old"):
        pass
    assert make_room(shelf, 2 * SIZE).evicted == ("middle",)


def test_bytes_that_another_model_shares_stay(shelf):
    put(shelf, "sharing", b"old".ljust(SIZE))
    rows = {row.model: row for row in usage(shelf)}
    assert (rows["old"].size, rows["old"].own) == (SIZE, 0)
    assert (rows["new"].size, rows["new"].own) == (SIZE, SIZE)
    assert remove(shelf, ["old"]).freed == 0
    assert shelf.store.find("sharing", "weights").path.is_file()


def test_a_model_whose_bytes_a_pinned_one_holds_is_not_evicted_for_nothing(shelf):
    put(shelf, "sharing", b"old".ljust(SIZE))
    set_pin(shelf, "sharing", pinned=True)
    assert make_room(shelf, 2 * SIZE).evicted == ("middle",)
    assert "old" in shelf.store.models()


def test_what_no_model_names_and_what_nobody_came_back_for_is_collected(shelf):
    (shelf.store.root / "receipts" / "old" / "weights.json").unlink()
    part = shelf.store.parts / f"{'0' * 64}.part"
    part.write_bytes(b"half")
    assert collect(shelf, None).freed == SIZE
    assert part.is_file()
    os.utime(part, (1, 1))
    assert collect(shelf, None).freed == len(b"half")
    assert not part.exists()


def test_a_store_that_is_not_there_has_nothing_to_collect(tmp_path):
    assert collect(make_shelf(tmp_path / "other"), 5).freed == 0


@pytest.mark.parametrize("kept", ["[]", "null", '{"old": 1}', "{"])
def test_pins_of_another_shape_pin_nothing(shelf, kept):
    (shelf.store.root / "pins.json").write_text(kept)
    assert len(make_room(shelf, 0).evicted) == 3
