"""Restricted weights ask once."""

from __future__ import annotations

import pytest

from upx.assets.licences import accepted_at, pending, require_licence, terms
from upx.config import Settings
from upx.errors import LicenceError
from upx.specs import Asset, Licence, ManualSource, ModelSpec

BINDING = Licence("CC-BY-NC-4.0", "https://example.org/l", noncommercial=True)
FREE = ModelSpec("free", 2, licence=Licence("MIT"))
BOUND = ModelSpec("bound", 2, licence=BINDING)


@pytest.fixture
def settings(tmp_path):
    return Settings.from_env({"UPX_HOME": str(tmp_path)})


def test_free_weights_ask_nothing_and_leave_nothing(settings):
    require_licence(FREE, settings, accept_now=False)
    assert not settings.data_dir.exists()


def test_restricted_weights_are_refused_with_the_line_to_add(settings):
    with pytest.raises(LicenceError, match=r"CC-BY-NC-4\.0") as caught:
        require_licence(BOUND, settings, accept_now=False)
    assert "--accept-licence" in caught.value.hint
    assert "https://example.org/l" in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("why", ["noncommercial", "gated", "ask"])
def test_each_reason_to_ask_asks(settings, why):
    model = ModelSpec("m", 2, licence=Licence("L", **{why: True}))
    assert pending(model, settings) == model.licences


def test_an_acceptance_is_remembered_for_that_licence_only(settings):
    require_licence(BOUND, settings, accept_now=True)
    require_licence(BOUND, settings, accept_now=False)
    assert accepted_at(BOUND, settings).startswith("20")
    changed = ModelSpec("bound", 2, licence=Licence("other", ask=True))
    with pytest.raises(LicenceError):
        require_licence(changed, settings, accept_now=False)


def test_a_licence_of_one_file_binds_the_whole_model(settings):
    base = Asset("base", "base.bin", (ManualSource("there"),), unverified="x", licence=BINDING)
    model = ModelSpec("mixed", 2, (base,), licence=Licence("MIT"))
    assert model.licence_names == "MIT AND CC-BY-NC-4.0"
    assert pending(model, settings) == (BINDING,)


def test_what_a_licence_asks_stands_in_its_line():
    line = terms(Licence("Own", "https://example.org", noncommercial=True, gated=True))
    assert line == "Own, not for commercial use, access to be asked for (https://example.org)"


@pytest.mark.parametrize("kept", ["[]", "null", "42", '{"bound": 5}', '{"bound": {"licence": 1}}', '{"bound"'])
def test_a_file_of_another_shape_means_that_nothing_was_accepted(settings, kept):
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / "licences.json").write_text(kept)
    with pytest.raises(LicenceError, match="CC-BY-NC"):
        require_licence(BOUND, settings, accept_now=False)
    require_licence(BOUND, settings, accept_now=True)
    require_licence(BOUND, settings, accept_now=False)


def test_an_acceptance_that_cannot_be_remembered_holds_for_this_once(settings):
    settings.data_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.data_dir.write_text("a file where the folder would be")
    require_licence(BOUND, settings, accept_now=True)
    with pytest.raises(LicenceError, match="CC-BY-NC"):
        require_licence(BOUND, settings, accept_now=False)
