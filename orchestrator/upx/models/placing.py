"""Whose file it is: told by names and shapes, by what was named, or by the file's own name. Nothing is written."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.assets.conversion import Chosen, chosen_by, only_group, unusable
from upx.assets.find import CONFIG, PICKLES
from upx.assets.inspect.kinds import kind_of
from upx.assets.recognise import Verdict, recognise
from upx.errors import ManifestError, UnusableWeightsError, UsageError
from upx.models.selection import by_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.assets.inspect.inventory import Inventory
    from upx.models.shelf import Member, Shelf
    from upx.specs import Asset, BackendSpec

Format: TypeAlias = Literal["safetensors", "pickle", "onnx", "other"]
_BY_SUFFIX: dict[str, Format] = {
    ".safetensors": "safetensors", ".onnx": "onnx", ".pth": "pickle", ".pt": "pickle", ".ckpt": "pickle",
}  # fmt: skip
_BY_CONTENT: dict[str, Format] = {
    "torch-zip": "pickle", "torch-pickle": "pickle", "safetensors": "safetensors", "onnx": "onnx",
}  # fmt: skip
# What a worker reads as safetensors may come as a pickle.
_TAKEN_AS: dict[Format, frozenset[str]] = {
    "safetensors": frozenset({".safetensors", *PICKLES}),
    "pickle": frozenset({".safetensors", *PICKLES}),
    "onnx": frozenset({".onnx"}),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file belongs; ``chosen`` of it, where it is a pickle."""

    member: Member
    asset: Asset
    chosen: Chosen | None = None


def wanted_places(shelf: Shelf, name: str) -> list[Place]:
    """The places that may be meant: all, those of one model, or one."""
    model, _, role = name.partition(":")
    members = by_names(shelf, [model]) if model else shelf.members()
    places = [Place(member, asset) for member in members for asset in member.model.assets]
    chosen = [each for each in places if not role or each.asset.role == role]
    if not chosen:
        roles = ", ".join(each.asset.role for each in places) or "no files"
        raise UsageError(f"{model} has no role {role!r}", hint=f"it has {roles}")
    return chosen


def format_of(path: Path) -> Format:
    """By its suffix, and where that says nothing by its first bytes: a pickle may be called ``.bin``."""
    return _BY_SUFFIX.get(path.suffix.lower()) or _BY_CONTENT.get(kind_of(path), "other")


def of_format(path: Path, form: Format, places: Sequence[Place]) -> list[Place]:
    """The places for files of that format: what a worker reads as safetensors is no ONNX file, whatever is in it."""
    found = [each for each in places if Path(each.asset.file).suffix in _TAKEN_AS[form]]
    if not found:
        names = {each.member.model.name for each in places}
        raise UnusableWeightsError(
            f"{path.name}: {names.pop() if len(names) == 1 else 'no model here'} takes no {form} file",
            hint="upx models info NAME says which files a model needs",
        )
    return found


def recognised(path: Path, inventory: Inventory, places: Sequence[Place], *, hint_of: str) -> list[Place]:
    """The places whose names and shapes the file has; one, unless models share the file."""
    has_config = path.with_name(CONFIG).is_file()
    backends = list({each.member.backend.name: each.member.backend for each in places}.values())
    verdict = _verdict(inventory, backends, config=has_config)
    found = [
        replace(place, chosen=chosen_by(match))
        for match in verdict.matches
        for place in places
        if (match.model, match.role) == (place.member.model.name, place.asset.role)
    ]
    if not found and _one_asset(places) and not places[0].asset.layout:
        return [replace(place, chosen=only_group(inventory, path.name)) for place in places]
    if not found:
        wanted = f"{places[0].member.model.name}:{places[0].asset.role}" if _one_asset(places) else ""
        raise unusable(path.name, verdict, wanted)
    return _one_meaning(path, found, hint_of)


def _verdict(inventory: Inventory, backends: Sequence[BackendSpec], *, config: bool) -> Verdict:
    """What it may be; one backend whose layout cannot be read hides no other."""
    try:
        return recognise(inventory, backends, config=config)
    except ManifestError:
        if len(backends) == 1:
            raise
    verdicts: list[Verdict] = []
    for backend in backends:
        with contextlib.suppress(ManifestError):
            verdicts.append(recognise(inventory, [backend], config=config))
    nearest = max((each.nearest for each in verdicts if each.nearest), key=lambda near: near.share, default=None)
    return Verdict(tuple(match for each in verdicts for match in each.matches), nearest)


def _one_meaning(path: Path, found: list[Place], hint_of: str) -> list[Place]:
    """Files that models share belong to all of them; what could be one of several is told by a name, or asked for."""
    if _one_asset(found):
        return found
    named = [each for each in found if each.member.model.name in {path.stem, hint_of}]
    if len(named) == 1:
        return named
    options = [f"--as {each.member.model.name}:{each.asset.role}" for each in found]
    raise UsageError(
        f"{path.name} could be {len(found)} models', which have the same names and shapes: "
        f"{', '.join(each.member.model.name for each in found)}",
        hint=f"say which: {' or '.join(options)}",
    )


def _one_asset(places: Sequence[Place]) -> bool:
    """Whether all of them are one file, which models may share."""
    return len({each.asset for each in places}) == 1


def by_name(path: Path, places: Sequence[Place]) -> list[Place]:
    """Files whose contents tell nothing: only as a role that was named, or one with that very file name."""
    named = [each for each in places if Path(each.asset.file).name == path.name]
    chosen = list(places) if _one_asset(places) else named
    if not chosen or not _one_asset(chosen):
        raise UnusableWeightsError(
            f"{path.name} says nothing about the model that it belongs to",
            hint="name it: upx models import FILE --as MODEL:ROLE; upx models info MODEL lists the roles",
        )
    wants = Path(chosen[0].asset.file).suffix
    if path.suffix.lower() != wants:
        raise UnusableWeightsError(
            f"{path.name} is no {wants} file, which {chosen[0].member.model.name}:{chosen[0].asset.role} is",
            hint="upx models info MODEL lists the files of a model",
        )
    return chosen
