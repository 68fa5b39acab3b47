"""Settings come from the environment once, and say what they cannot use."""

from __future__ import annotations

import pytest

from upx.config import Settings
from upx.errors import UsageError


def test_upx_home_roots_every_folder(tmp_path):
    settings = Settings.from_env({"UPX_HOME": str(tmp_path / "h")})
    folders = (settings.data_dir, settings.cache_dir, settings.state_dir, settings.venvs_dir, settings.stage_dir)
    assert all(folder.is_relative_to(tmp_path / "h") for folder in folders)
    assert settings.runtime_dir == tmp_path / "h" / "run"


def test_nothing_of_the_users_environment_reaches_a_worker_unless_it_is_listed():
    settings = Settings.from_env({"UPX_HOME": "/x", "PATH": "/bin", "PYTHONPATH": "/evil", "HF_TOKEN": "s"})
    assert settings.child_env == {"PATH": "/bin"}


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False), ("no", False)])
def test_a_flag_is_read_as_people_write_it(value, expected):
    assert Settings.from_env({"UPX_HOME": "/x", "UPX_OFFLINE": value}).offline is expected


def test_a_flag_that_is_neither_is_refused():
    with pytest.raises(UsageError, match="UPX_OFFLINE"):
        Settings.from_env({"UPX_HOME": "/x", "UPX_OFFLINE": "perhaps"})


def test_a_wheelhouse_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="UPX_WHEELHOUSE"):
        Settings.from_env({"UPX_HOME": "/x", "UPX_WHEELHOUSE": str(tmp_path / "none")})
    assert Settings.from_env({"UPX_HOME": "/x", "UPX_WHEELHOUSE": str(tmp_path)}).wheelhouse == tmp_path


@pytest.mark.parametrize("name", ["UPX_HOME", "UPX_WHEELHOUSE", "UPX_UV_CACHE"])
def test_the_home_of_nobody_is_named_with_its_variable(name):
    with pytest.raises(UsageError, match=name) as caught:
        Settings.from_env({name: "~nobody-of-that-name/upx"})
    assert "full path" in caught.value.hint
