"""Machines for tests of a box: an attic that serves, and a laptop that knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from box_kit import Box, Machine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator


@pytest.fixture
def attic(venvs, upx_env, tmp_path) -> Machine:
    data = tmp_path / "attic" / "data"
    data.mkdir(parents=True)
    (data / "venvs").symlink_to(venvs, target_is_directory=True)
    return Machine(tmp_path / "attic", upx_env)


@pytest.fixture
def laptop(upx_env, tmp_path) -> Machine:
    return Machine(tmp_path / "laptop", upx_env)


@pytest.fixture
def serve(attic, tmp_path) -> Iterator[Callable[..., Box]]:
    made: list[Box] = []

    def start(*words: str) -> Box:
        made.append(Box(attic, tmp_path / f"said{len(made)}", *words))
        return made[-1]

    yield start
    for box in made:
        box.kill()


@pytest.fixture
def add(attic, laptop) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``upx worker add attic`` on the laptop, where that is what is tested; else it ``knows`` the box."""

    def call(box: Box, key: str = "", name: str = "attic") -> subprocess.CompletedProcess[str]:
        return laptop.upx("worker", "add", name, box.address, "--key", key or attic.keys.public("server"))

    return call
