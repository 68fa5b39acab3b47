from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from venv_kit import House, make_settings

from upx.venvs.builder import EnvBuilder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.add("alpha")
    house.add("beta")
    return house


@pytest.fixture
def builder(house: House) -> EnvBuilder:
    return EnvBuilder(make_settings(house.root, wheelhouse=house.folder))
