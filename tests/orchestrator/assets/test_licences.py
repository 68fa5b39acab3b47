"""Restricted weights ask once."""

from __future__ import annotations

import pytest

from upx.assets.licences import require_licence
from upx.config import Settings
from upx.errors import WeightsError
from upx.specs import ModelSpec

FREE = ModelSpec("free", 2, licence="MIT")
BOUND = ModelSpec("bound", 2, licence="CC-BY-NC-4.0", licence_url="https://example.org/l", restricted=True)


@pytest.fixture
def settings(tmp_path):
    return Settings.from_env({"UPX_HOME": str(tmp_path)})


def test_free_weights_ask_nothing_and_leave_nothing(settings):
    require_licence(FREE, settings, accept=False)
    assert not settings.data_dir.exists()


def test_restricted_weights_are_refused_with_the_line_to_add(settings):
    with pytest.raises(WeightsError, match=r"CC-BY-NC-4\.0") as caught:
        require_licence(BOUND, settings, accept=False)
    assert "--accept-licence" in caught.value.hint


def test_an_acceptance_is_remembered_for_that_licence_only(settings):
    require_licence(BOUND, settings, accept=True)
    require_licence(BOUND, settings, accept=False)
    changed = ModelSpec("bound", 2, licence="other", restricted=True)
    with pytest.raises(WeightsError):
        require_licence(changed, settings, accept=False)


@pytest.mark.parametrize("kept", ["[]", "null", "42", '{"bound": 5}', '{"bound"'])
def test_a_file_of_another_shape_means_that_nothing_was_accepted(settings, kept):
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / "licences.json").write_text(kept)
    with pytest.raises(WeightsError, match="CC-BY-NC"):
        require_licence(BOUND, settings, accept=False)
    require_licence(BOUND, settings, accept=True)
    require_licence(BOUND, settings, accept=False)


def test_an_acceptance_that_cannot_be_remembered_holds_for_this_once(settings):
    settings.data_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.data_dir.write_text("a file where the folder would be")
    require_licence(BOUND, settings, accept=True)
    with pytest.raises(WeightsError, match="CC-BY-NC"):
        require_licence(BOUND, settings, accept=False)
