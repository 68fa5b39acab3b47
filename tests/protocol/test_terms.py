"""What a batch of a host of another machine may ask for."""

from __future__ import annotations

import math
from typing import Any

import pytest

from upx_protocol.messages import Buffer, Upscale
from upx_protocol.options import WorkerOptions
from upx_protocol.terms import MOST_RESULTS, Terms, result_bytes

PARAMETERS = {
    "delay": {"kind": "float", "default": 0.0, "minimum": 0.0, "maximum": 10.0},
    "steps": {"kind": "int", "default": 4, "minimum": 1},
    "fast": {"kind": "bool", "default": False},
    "fix": {"kind": "str", "default": "wavelet", "choices": ["wavelet", "none"]},
    "side": {"kind": "int", "default": 2, "choices": [2, 4]},
    "file": {"kind": "str", "default": ""},
}
SERVING = WorkerOptions("toy", "toy", "tcp://127.0.0.1:1", allowed="/allowed", parameters=PARAMETERS)


def batch(params: Any = None, *, side: int = 8, tiles: int = 1, out_dtype: str = "uint8") -> Upscale:
    buffer = Buffer("uint8", (side, side, 3), side * side * 3)
    return Upscale(1, 0, "load", (buffer,) * tiles, out_dtype=out_dtype, params=params or {})


def test_what_the_list_allows_passes_and_so_does_every_default() -> None:
    terms = Terms.of(SERVING)
    assert terms.refusal(batch({name: facts["default"] for name, facts in PARAMETERS.items()}), 2) is None
    given = {"delay": 10, "steps": 2**40, "fast": True, "fix": "none", "side": 4}
    assert terms.refusal(batch(given), 2) is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("novelty", 1, "is no parameter here"),
        ("n" * 1000, 1, "is no parameter here"),
        ("delay", -0.1, "out of range"),
        ("delay", 10.5, "out of range"),
        ("delay", math.nan, "is no float"),
        ("delay", math.inf, "is no float"),
        ("delay", "1.0", "is no float"),
        ("delay", True, "is no float"),
        ("delay", None, "is no float"),
        ("steps", 0, "out of range"),
        ("steps", 2.0, "is no int"),
        ("steps", True, "is no int"),
        ("fast", 1, "is no bool"),
        ("fix", "adain", "is none of wavelet, none"),
        ("fix", 1, "is no str"),
        ("side", 3, "is none of 2, 4"),
        ("file", "/etc/passwd", "is not for hosts of other machines"),
    ],
)
def test_what_it_does_not_is_refused_by_name(name: str, value: Any, says: str) -> None:
    refused = Terms.of(SERVING).refusal(batch({"steps": 2, name: value}), 2)
    assert refused is not None
    assert (refused.failure, refused.retryable) == ("input", False)
    assert refused.message.startswith(name[:32])
    assert says in refused.message
    assert len(refused.message) < 100


def test_an_empty_list_allows_nothing_and_none_whatever_a_host_says() -> None:
    given = batch({"anything": "/etc/passwd"}, side=4096, tiles=16, out_dtype="float32")
    assert Terms.of(WorkerOptions("toy", "toy", "ipc:///x")).refusal(given, 4) is None
    bare = Terms.of(WorkerOptions("toy", "toy", "tcp://x", allowed="/allowed", parameters={}))
    assert bare.refusal(batch({"anything": 1}), 4) is not None
    assert bare.refusal(batch(), 4) is None


def test_more_results_than_the_worker_can_hold_are_too_many_at_once_and_a_lone_tile_never_is() -> None:
    terms = Terms.of(SERVING)
    large = batch(side=4096, tiles=2, out_dtype="float32")
    assert result_bytes(large, 4) == 2 * (4 * 4096) ** 2 * 3 * 4 > MOST_RESULTS
    refused = terms.refusal(large, 4)
    assert refused is not None
    assert (refused.failure, refused.retryable) == ("oom", True)
    assert terms.refusal(batch(side=4096, out_dtype="float32"), 4) is None
    assert terms.refusal(batch(side=256, tiles=32), 4) is None


def test_the_list_survives_the_worker_s_birth() -> None:
    born = WorkerOptions.from_json(SERVING.to_json())
    assert born.parameters == PARAMETERS
    assert Terms.of(born).refusal(batch({"fix": "none"}), 2) is None
