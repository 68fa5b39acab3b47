"""Which backend, model and parameters a request means, and why: pure decisions over manifests."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upx.errors import ParameterError, UnknownBackendError, UnsupportedScaleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from upx.specs import BackendSpec, ModelSpec, ParameterSpec, ParameterValue

DEFAULT_BACKEND = "span"
# Longer than any machine runs, and within what every clock can count.
LONGEST_S = 1e10


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asked for. ``workers`` 0: as many as this machine and backend like best.

    ``keep_alive``: 0 ties the workers to this process, seconds keep them idle so long, None for ever.
    """

    backend: str | None = None
    model: str | None = None
    scale: int | None = None
    weights: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    workers: int = 0
    keep_alive: float | None = 0.0
    params: Mapping[str, ParameterValue] = field(default_factory=dict[str, "ParameterValue"])
    # The licence of restricted weights was read and accepted.
    accept_licence: bool = False
    # Where it runs: names of boxes, "local" and "any"; this machine alone where it is empty.
    on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """ParameterError for what callers without a type checker give."""
        for name in ("backend", "model", "device", "precision"):
            if not isinstance(getattr(self, name), str | None):
                raise ParameterError(f"{name}={getattr(self, name)!r}", hint=f"{name} is a name")
        if self.scale is not None and (type(self.scale) is not int or self.scale < 1):
            raise ParameterError(f"scale={self.scale!r}", hint="a whole number from 1 up, or none for the model's own")
        if type(self.workers) is not int or self.workers < 0:
            raise ParameterError(f"workers={self.workers!r}", hint="a whole number, 0 for as many as are fastest")
        if self.keep_alive is not None and not _is_time(self.keep_alive):
            raise ParameterError(
                f"keep_alive={self.keep_alive!r}", hint="seconds, 0 to end with this process, None for ever"
            )


@dataclass(frozen=True, slots=True)
class Route:
    """The answer: backend, model, how many passes of it, and the reason in words."""

    backend: BackendSpec
    model: ModelSpec
    passes: int
    reason: str

    @property
    def align(self) -> int:
        """What tiles should start at multiples of, in input pixels; 1 for anywhere."""
        return self.model.align or self.backend.tiling.align


def _is_time(value: object) -> bool:
    """Whether it is a number of seconds that a clock can count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LONGEST_S


def choose(request: Request, backends: Sequence[BackendSpec], *, default: str = DEFAULT_BACKEND) -> Route:
    """Resolve a request.

    ``-b`` and ``-n`` both accept a backend, an alias or a model. UnknownBackendError names the nearest;
    UnsupportedScaleError the scales there are.
    """
    wanted = [name for name in (request.backend, request.model) if name]
    reason = "asked for by name" if wanted else "the default"
    spec, family = _lookup(wanted[0] if wanted else default, backends)
    if request.backend and request.model:
        spec, family = _within(spec, request.model, backends)
    model = _member(spec, family, request.scale)
    if request.scale is not None and model.scale != request.scale:
        raise _no_such_scale(spec, family, request.scale)
    if len(family) > 1:
        reason += f", scale {model.scale}" if request.scale else ", its default model"
    return Route(backend=spec, model=model, passes=1, reason=reason)


def _lookup(name: str, backends: Sequence[BackendSpec]) -> tuple[BackendSpec, tuple[ModelSpec, ...]]:
    """What a name means: a backend with all of its models, a family of them, or one."""
    for spec in backends:
        if name == spec.name or name in spec.aliases:
            return spec, spec.models
    for spec in backends:
        family = tuple(model for model in spec.models if name == model.name or name in model.aliases)
        if family:
            return spec, family
    raise UnknownBackendError(f"no backend or model is called {name!r}", hint=_nearest(name, _names(backends)))


def _within(spec: BackendSpec, name: str, backends: Sequence[BackendSpec]) -> tuple[BackendSpec, tuple[ModelSpec, ...]]:
    """The models that ``name`` means in one backend; a name of another backend is said to be that."""
    other, family = _lookup(name, backends)
    if other.name != spec.name:
        raise UnknownBackendError(
            f"backend {spec.name} has no model {name!r}; it belongs to {other.name}",
            hint=f"upx up -b {other.name} -n {name}, or one of: {', '.join(m.name for m in spec.models)}",
        )
    return spec, family


def _member(spec: BackendSpec, family: Sequence[ModelSpec], scale: int | None) -> ModelSpec:
    """The family's default, or its first of that scale that asks for no licence."""
    default = next((model for model in family if model.name == spec.default_model), family[0])
    if scale is None or default.scale == scale:
        return default
    free = [model for model in family if model.scale == scale and not model.restricted]
    return free[0] if free else default


def _no_such_scale(spec: BackendSpec, models: Iterable[ModelSpec], scale: int) -> UnsupportedScaleError:
    have = ", ".join(f"{model.name} (x{model.scale})" for model in models)
    scales = sorted({model.scale for model in spec.models})
    return UnsupportedScaleError(
        f"no scale {scale} here: {have}",
        hint=f"{spec.name} enlarges by {', '.join(map(str, scales))}; leave -s out for the model's own",
    )


def _names(backends: Iterable[BackendSpec]) -> list[str]:
    models = [model for spec in backends for model in spec.models]
    own = [name for spec in backends for name in (spec.name, *spec.aliases)]
    return [*own, *(name for model in models for name in (model.name, *model.aliases))]


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}? (upx backends lists them all)" if near else "upx backends lists them all"


def coerce_parameters(spec: BackendSpec, given: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """Check ``--set`` values, given as text or typed, against the manifest; defaults are not filled in.

    ParameterError for an unknown name (with the nearest), a wrong type, or a value out of range.
    """
    known = {parameter.name: parameter for parameter in spec.parameters}
    result: dict[str, ParameterValue] = {}
    for name, value in given.items():
        if name not in known:
            have = ", ".join(known) or "none"
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ParameterError(f"{spec.name} has no parameter {name!r}", hint=f"{hint}parameters: {have}")
        result[name] = _coerce(spec.name, known[name], value)
    return result


def with_defaults(spec: BackendSpec, given: Mapping[str, ParameterValue], applies: str) -> dict[str, ParameterValue]:
    """The parameters of one kind ("load" or "job"), defaults filled in."""
    return {p.name: given.get(p.name, p.default) for p in spec.parameters if p.applies == applies}


def _coerce(backend: str, parameter: ParameterSpec, value: ParameterValue) -> ParameterValue:
    try:
        typed = _typed(parameter, value)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{parameter.name}={value} is no {parameter.kind}", hint=f"upx backends info {backend} says what it takes"
        ) from error
    low, high = parameter.minimum, parameter.maximum
    too_low = low is not None and isinstance(typed, int | float) and typed < low
    too_high = high is not None and isinstance(typed, int | float) and typed > high
    if too_low or too_high:
        raise ParameterError(
            f"{parameter.name}={value} is out of range",
            hint=f"{parameter.name} goes from {_bound(low)} to {_bound(high)}",
        )
    if parameter.choices and typed not in parameter.choices:
        raise ParameterError(
            f"{parameter.name}={value} is no choice", hint=f"one of: {', '.join(map(str, parameter.choices))}"
        )
    return typed


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def _typed(parameter: ParameterSpec, value: ParameterValue) -> ParameterValue:
    """The value as the parameter's kind; ValueError when it is none."""
    if parameter.kind == "str":
        return str(value)
    if parameter.kind == "bool":
        return _boolean(value)
    if isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004  # to the caller it is a value of the wrong kind
    number = float(value)
    if number != number or number in {float("inf"), float("-inf")}:  # noqa: PLR0124  # NaN is not itself
        raise ValueError(value)
    if parameter.kind == "float":
        return number
    if not number.is_integer():
        raise ValueError(value)
    return int(value)


def _boolean(value: ParameterValue) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[str(value).lower()]
    except KeyError as error:
        raise ValueError(value) from error
