"""Which backend, model and role a file of weights is, told by the names and shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from upx.assets.inspect.layouts import Layout, read_layout, sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from upx.assets.inspect.inventory import Group, Inventory
    from upx.specs import BackendSpec

Shape = tuple[int, ...]
# A group with fewer of an asset's tensors than this share is nothing like it.
_SOME = 0.1


@dataclass(frozen=True, slots=True)
class Match:
    """The file is that role of that model.

    ``group``: where its tensors lie; ``strip``: what every name begins with and the model's do not ("module.");
    ``ignored``: the names, without it, of tensors that the model has no use for.
    """

    backend: str
    model: str
    role: str
    group: str
    strip: str
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Near:
    """What the file is most like; ``share`` of all names, its own and the model's, are in both with one shape."""

    model: str
    role: str
    group: str
    share: float
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every asset that the file is; the nearest where it is none. Models of one architecture share names and shapes."""

    matches: tuple[Match, ...]
    nearest: Near | None


@dataclass(frozen=True, slots=True)
class _Form:
    """What a layout asks for at one scale: ``required`` must be there."""

    layout: Layout
    shapes: Mapping[str, Shape]
    required: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An asset; ``vary``: its sizes and its number of layers may be others than its form's."""

    backend: str
    model: str
    role: str
    form: _Form
    vary: bool


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A group with its names as they are without ``strip``."""

    path: str
    strip: str
    shapes: Mapping[str, Shape]


def recognise(inventory: Inventory, backends: Sequence[BackendSpec], *, config: bool = False) -> Verdict:
    """Compare the file with every asset that has a layout; ``config``: a ``config.json`` lies beside it.

    ManifestError for a layout that cannot be used.
    """
    candidates = [candidate for group in inventory.groups for candidate in _candidates(group)]
    wanted = list(_all_wanted(backends, config=config))
    found = [(each, where) for each in wanted if (where := _first(each, candidates)) is not None]
    # Sizes may all be others, but a model's scale is its own: where that tells models apart, it does.
    fitting = [(each, where) for each, where in found if not each.vary or _has_scale(each, where)]
    matches = tuple(_match(each, where) for each, where in fitting or found)
    return Verdict(matches, None if matches else _nearest(wanted, candidates))


def _candidates(group: Group) -> Iterator[_Candidate]:
    """The group as it is, then without each prefix that all of its names share."""
    shapes = {name: tensor.shape for name, tensor in group.tensors.items()}
    for strip in _shared_prefixes(shapes):
        yield _Candidate(group.path, strip, {name[len(strip) :]: shape for name, shape in shapes.items()})


def _shared_prefixes(names: Iterable[str]) -> Iterator[str]:
    first, last = min(names, default=""), max(names, default="")
    yield ""
    parts, prefix = first.split(".")[:-1], ""
    for part in parts:
        prefix += f"{part}."
        # What the first and the last in order begin with, all between begin with.
        if not last.startswith(prefix):
            return
        yield prefix


def _all_wanted(backends: Sequence[BackendSpec], *, config: bool) -> Iterator[_Wanted]:
    forms: dict[tuple[Path, int], _Form] = {}
    for backend in backends:
        for model in backend.models:
            for asset in (each for each in model.assets if each.layout):
                key = backend.folder / asset.layout, model.scale
                if key not in forms:
                    forms[key] = _form(*key)
                form = forms[key]
                yield _Wanted(backend.name, model.name, asset.role, form, config and form.layout.sizes_vary)


def _form(path: Path, scale: int) -> _Form:
    layout = read_layout(path)
    shapes = {name: sizes(shape, scale) for name, shape in layout.tensors.items()}
    free = layout.optional.match, layout.ignored.match
    return _Form(layout, shapes, frozenset(name for name in shapes if not any(match(name) for match in free)))


def _first(wanted: _Wanted, candidates: Sequence[_Candidate]) -> _Candidate | None:
    """The first group that is it: the top, the wrappers in their order, then any other."""
    order = {path: rank for rank, path in enumerate(("", *wanted.form.layout.wrappers))}
    likely = [each for each in candidates if wanted.vary or len(each.shapes) >= len(wanted.form.required)]
    likely.sort(key=lambda each: order.get(each.path, len(order)))
    return next((each for each in likely if not _problem(wanted, each)), None)


def _match(wanted: _Wanted, where: _Candidate) -> Match:
    ignored = tuple(sorted(name for name in where.shapes if wanted.form.layout.ignored.match(name)))
    return Match(wanted.backend, wanted.model, wanted.role, where.path, where.strip, ignored)


def _problem(wanted: _Wanted, candidate: _Candidate) -> str:
    """What is wrong first, for people; empty where nothing is."""
    if wanted.vary:
        return _problem_of_kinds(wanted, candidate)
    has, wants = candidate.shapes, wanted.form.shapes
    if missing := wanted.form.required - has.keys():
        first = next(name for name in wants if name in missing)
        return f"{len(missing)} of {len(wants)} tensors are missing, the first is {first}"
    for name, shape in has.items():
        if name in wants and not _fits(shape, wants[name]):
            return f"{name} is {_text(shape)}, and should be {_text(wants[name])}"
    return _unexpected([name for name in has if name not in wants and not wanted.form.layout.ignored.match(name)])


def _problem_of_kinds(wanted: _Wanted, candidate: _Candidate) -> str:
    """Where sizes vary: layers may be more or fewer, so one of each kind will do."""
    kinds, has = _kinds(wanted.form.shapes), _kinds(candidate.shapes)
    if missing := _kinds(wanted.form.required) - has:
        first = next(name for name in wanted.form.shapes if _kind(name) in missing)
        return f"{len(missing)} of {len(kinds)} kinds of tensors are missing, the first is that of {first}"
    strange = [name for name in candidate.shapes if _kind(name) not in kinds] if has - kinds else []
    return _unexpected([name for name in strange if not wanted.form.layout.ignored.match(name)])


def _unexpected(names: list[str]) -> str:
    return f"{len(names)} of its tensors are unexpected, the first is {names[0][:100]}" if names else ""


def _has_scale(wanted: _Wanted, where: _Candidate) -> bool:
    """Whether the axes that follow from the scale are as the scale wants them."""
    for name, shape in wanted.form.layout.tensors.items():
        if any(isinstance(axis, str) for axis in shape) and name in where.shapes:
            named = tuple(
                size if isinstance(axis, str) else -1
                for axis, size in zip(shape, wanted.form.shapes[name], strict=True)
            )
            if not _fits(where.shapes[name], named):
                return False
    return True


def _nearest(wanted: Sequence[_Wanted], candidates: Sequence[_Candidate]) -> Near | None:
    shares = (
        (_share(each, where), each, where)
        for each in wanted
        for where in candidates
        if len(where.shapes) >= _SOME * len(each.form.required)
    )
    share, each, where = max(shares, key=lambda found: found[0], default=(0.0, None, None))
    if each is None or where is None or share == 0:
        return None
    return Near(each.model, each.role, where.path, share, _problem(each, where))


def _share(wanted: _Wanted, candidate: _Candidate) -> float:
    wants = wanted.form.shapes
    both = [name for name in candidate.shapes if name in wants]
    alike = both if wanted.vary else [name for name in both if _fits(candidate.shapes[name], wants[name])]
    # A shape that differs counts half: the same network at another size is nearer than another network.
    return (len(alike) + len(both)) / 2 / (len(wants) + len(candidate.shapes) - len(both))


def _fits(shape: Shape, wants: Shape) -> bool:
    return shape == wants or (
        len(shape) == len(wants) and all(want in {-1, axis} for axis, want in zip(shape, wants, strict=True))
    )


def _kinds(names: Iterable[str]) -> frozenset[str]:
    """The names with every number left out."""
    return frozenset(map(_kind, names))


@lru_cache(maxsize=1 << 14)
def _kind(name: str) -> str:
    return ".".join("#" if part.isdecimal() else part for part in name.split("."))


def _text(shape: Shape) -> str:
    return " x ".join("any" if axis < 0 else str(axis) for axis in shape) or "a single value"
