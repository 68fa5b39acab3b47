"""Routes: what a request means, and the answers to requests that mean nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from upx.errors import ParameterError, UnknownBackendError, UnsupportedScaleError
from upx.routes import Request, choose, coerce_parameters, with_defaults
from upx.specs import BackendSpec, EnvSpec, Licence, ModelSpec, ParameterSpec


def backend(name, models, **more):
    licences = {model: Licence("L", noncommercial=model.endswith("nc")) for model, _ in models}
    specs = tuple(ModelSpec(model, scale, licence=licences[model]) for model, scale in models)
    return BackendSpec(
        name=name, title=name, folder=Path(), module=name, env=EnvSpec(name, Path()), models=specs,
        default_model=specs[0].name, **more,
    )  # fmt: skip


SPAN = backend("span", [("span-x4", 4), ("span-x2-nc", 2), ("span-x2", 2)], aliases=("fast",))
HAT = backend("hat", [("hat-l", 4)])
ALL = [SPAN, HAT]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(), "span-x4"),
        (Request(backend="hat"), "hat-l"),
        (Request(backend="fast"), "span-x4"),
        (Request(backend="span-x2"), "span-x2"),
        (Request(model="hat-l"), "hat-l"),
        (Request(model="hat"), "hat-l"),
        (Request(backend="span", model="span-x2"), "span-x2"),
        (Request(backend="fast", scale=4), "span-x4"),
        (Request(backend="span-x2", scale=2), "span-x2"),
    ],
)
def test_a_name_finds_its_model(request_, expected):
    route = choose(request_, ALL)
    assert route.model.name == expected
    assert route.reason


def test_a_scale_picks_the_member_of_the_family_that_needs_no_licence():
    assert choose(Request(scale=2), ALL).model.name == "span-x2"


def test_a_name_of_a_family_finds_the_member_of_the_scale():
    family = tuple(
        dataclasses.replace(model, aliases=("athena",) if "sir" in model.name else ())
        for model in backend("hit", [("srf-x4", 4), ("sir-x2", 2), ("sir-x4", 4)]).models
    )
    backends = [dataclasses.replace(HAT, name="hit", models=family, default_model="srf-x4"), SPAN]
    assert choose(Request(backend="athena"), backends).model.name == "sir-x2"
    assert choose(Request(backend="athena", scale=4), backends).model.name == "sir-x4"
    assert choose(Request(backend="hit", model="athena", scale=4), backends).model.name == "sir-x4"
    with pytest.raises(UnsupportedScaleError, match=r"sir-x2 \(x2\), sir-x4 \(x4\)"):
        choose(Request(model="athena", scale=3), backends)
    with pytest.raises(UnknownBackendError) as caught:
        choose(Request(model="athene"), backends)
    assert "did you mean athena?" in caught.value.hint


def test_the_reason_tells_a_default_from_a_choice():
    assert "default" in choose(Request(), ALL).reason
    assert "by name" in choose(Request(backend="hat"), ALL).reason


def test_a_default_backend_can_be_set():
    assert choose(Request(), ALL, default="hat").model.name == "hat-l"


@pytest.mark.parametrize(
    "request_", [Request(scale=3), Request(backend="hat", scale=2), Request(model="hat-l", scale=8)]
)
def test_a_scale_that_is_not_there_names_those_that_are(request_):
    with pytest.raises(UnsupportedScaleError) as caught:
        choose(request_, ALL)
    assert "x4" in str(caught.value)
    assert caught.value.hint


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownBackendError) as caught:
        choose(Request(backend="spam"), ALL)
    assert "did you mean span?" in caught.value.hint


def test_a_model_of_another_backend_is_said_to_be_that():
    with pytest.raises(UnknownBackendError, match="belongs to hat") as caught:
        choose(Request(backend="span", model="hat-l"), ALL)
    assert "-b hat -n hat-l" in caught.value.hint


PARAMETERS = backend(
    "p",
    [("p", 2)],
    parameters=(
        ParameterSpec("cfg", "float", 1.0, minimum=0, maximum=8),
        ParameterSpec("steps", "int", 4, minimum=1),
        ParameterSpec("fix", "str", "wavelet", choices=("wavelet", "none")),
        ParameterSpec("fast", "bool", default=False, applies="load"),
    ),
)


def test_text_becomes_the_parameters_kind():
    given = coerce_parameters(PARAMETERS, {"cfg": "4", "steps": "2", "fix": "none", "fast": "yes"})
    assert given == {"cfg": 4.0, "steps": 2, "fix": "none", "fast": True}
    assert isinstance(given["cfg"], float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cgf": 1}, "no parameter 'cgf'"),
        ({"cfg": "9"}, "out of range"),
        ({"cfg": "nan"}, "no float"),
        ({"cfg": True}, "no float"),
        ({"steps": 1.5}, "no int"),
        ({"steps": "0"}, "out of range"),
        ({"fix": "adain"}, "no choice"),
        ({"fast": "maybe"}, "no bool"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_it_takes(given, message):
    with pytest.raises(ParameterError, match=message) as caught:
        coerce_parameters(PARAMETERS, given)
    assert caught.value.hint


def test_defaults_are_split_by_what_they_apply_to():
    assert with_defaults(PARAMETERS, {"cfg": 2.0}, "job") == {"cfg": 2.0, "steps": 4, "fix": "wavelet"}
    assert with_defaults(PARAMETERS, {}, "load") == {"fast": False}


@pytest.mark.parametrize(
    "wrong",
    [
        {"backend": 5}, {"model": b"x"}, {"device": 0}, {"precision": 16}, {"scale": "4"}, {"scale": 4.0}, {"scale": 0},
        {"workers": -1}, {"workers": 1.5}, {"workers": "2"}, {"keep_alive": "5m"}, {"keep_alive": -1},
        {"keep_alive": float("nan")}, {"keep_alive": float("inf")}, {"keep_alive": 1e300}, {"keep_alive": True},
    ],
)  # fmt: skip
def test_a_request_of_the_wrong_kind_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ParameterError, match=name) as caught:
        Request(**wrong)
    assert caught.value.hint


@pytest.mark.parametrize("value", [None, [1], {}])
def test_a_value_that_is_no_number_at_all_is_a_wrong_parameter(value):
    spec = dataclasses.replace(SPAN, parameters=(ParameterSpec("delay", "float", 0.0),))
    with pytest.raises(ParameterError, match="delay"):
        coerce_parameters(spec, {"delay": value})
