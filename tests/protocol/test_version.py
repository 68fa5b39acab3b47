"""Two sides agree on the highest version that both speak, or on none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upx_protocol.options import WorkerOptions
from upx_protocol.version import Version, highest_common

VERSIONS = st.builds(Version, st.integers(0, 3), st.integers(0, 3))


@pytest.mark.parametrize(
    ("oldest", "newest", "common"),
    [
        ((1, 0), (1, 0), (1, 0)),
        ((1, 0), (9, 9), (2, 1)),
        ((1, 2), (1, 5), (1, 5)),
        ((0, 1), (0, 9), None),
        ((2, 2), (3, 0), None),
    ],
)
def test_the_highest_common_version_wins(
    oldest: tuple[int, int], newest: tuple[int, int], common: tuple[int, int] | None
) -> None:
    found = highest_common(Version(*oldest), Version(*newest), our_oldest=Version(1, 0), our_newest=Version(2, 1))
    assert found == (None if common is None else Version(*common))


@given(VERSIONS, VERSIONS, VERSIONS, VERSIONS)
def test_what_is_agreed_on_lies_in_both_ranges_and_both_agree(a: Version, b: Version, c: Version, d: Version) -> None:
    mine, theirs = sorted((a, b)), sorted((c, d))
    found = highest_common(*mine, our_oldest=theirs[0], our_newest=theirs[1])
    assert found == highest_common(*theirs, our_oldest=mine[0], our_newest=mine[1])
    if found is None:
        assert mine[1] < theirs[0] or theirs[1] < mine[0]
    else:
        assert mine[0] <= found <= mine[1]
        assert theirs[0] <= found <= theirs[1]


def test_options_survive_the_command_line_and_unknown_ones_are_refused() -> None:
    options = WorkerOptions("b", "m", "ipc:///x", idle_s=1.5, tied=False)
    assert WorkerOptions.from_json(options.to_json()) == options
    with pytest.raises(TypeError):
        WorkerOptions.from_json(json.dumps({"backend": "b", "module": "m", "endpoint": "e", "colour": "red"}))
