"""What this machine may send: verified files of one model, whose terms its user has accepted, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fault_server import Content
from heavy_kit import BINDING, heavy, keep
from shelf_kit import make_shelf

from upx.assets.licences import accept
from upx.assets.supply import ModelSupply
from upx.errors import LicenceError, WeightsError
from upx_protocol.messages import Wanted

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = Content(5000, seed=9)
WANTED = Wanted("weights", "weights.bin", CONTENT.sha256, CONTENT.size)


def supply_of(home: Path) -> ModelSupply:
    shelf = make_shelf(home)
    backend = shelf.catalog.backend("heavy")
    return ModelSupply(backend.models[0], shelf.settings, lambda: shelf.finder(backend))


def test_a_file_of_the_store_is_found_by_its_digest_whatever_it_is_called(tmp_path) -> None:
    heavy(tmp_path, CONTENT)
    keep(tmp_path, CONTENT)
    found = supply_of(tmp_path)([Wanted("other", "../../etc/passwd", CONTENT.sha256, 1)])
    assert found[CONTENT.sha256].read_bytes() == CONTENT.bytes


@pytest.mark.parametrize("sha256", ["ff" * 32, "", "../x"])
def test_a_digest_that_is_none_of_the_models_gets_nothing(tmp_path, sha256) -> None:
    heavy(tmp_path, CONTENT)
    keep(tmp_path, CONTENT)
    secret = tmp_path / "data" / "weights" / "blobs" / ("ff" * 32)
    secret.write_text("another model's")
    with pytest.raises(WeightsError, match="is not here either"):
        supply_of(tmp_path)([WANTED, Wanted("weights", "weights.bin", sha256)])


def test_what_is_not_here_is_named_with_the_command_that_brings_it(tmp_path) -> None:
    heavy(tmp_path, CONTENT)
    with pytest.raises(WeightsError) as caught:
        supply_of(tmp_path)([WANTED])
    assert "upx models pull heavy-x2" in caught.value.hint


def test_a_users_own_weights_are_never_sent_in_the_place_of_the_released_ones(tmp_path) -> None:
    heavy(tmp_path, CONTENT)
    own = tmp_path / "own" / "heavy-x2"
    own.mkdir(parents=True)
    (own / "weights.bin").write_bytes(b"mine")
    shelf = make_shelf(tmp_path, UPX_WEIGHTS=str(tmp_path / "own"))
    backend = shelf.catalog.backend("heavy")
    supply = ModelSupply(backend.models[0], shelf.settings, lambda: shelf.finder(backend))
    with pytest.raises(WeightsError):
        supply([WANTED])
    keep(tmp_path, CONTENT)
    assert supply([WANTED])[CONTENT.sha256].read_bytes() == CONTENT.bytes


def test_terms_that_nobody_here_has_accepted_keep_a_file_here(tmp_path) -> None:
    heavy(tmp_path, CONTENT, licence=BINDING)
    keep(tmp_path, CONTENT)
    supply = supply_of(tmp_path)
    with pytest.raises(LicenceError):
        supply([WANTED])
    accept(supply.model, supply.settings)
    assert set(supply([WANTED])) == {CONTENT.sha256}
