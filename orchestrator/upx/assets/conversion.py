"""Pickles become safetensors: opened in the ``convert`` worker alone, chosen from here by names and shapes.

The worker is asked twice: what is in the file, without reading tensors; then for the one group that is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from upx.assets.inspect.inventory import Inventory, from_json
from upx.assets.inspect.safetensors import read_header
from upx.assets.inspect.torchfile import check_container
from upx.assets.recognise import Match, Verdict, recognise
from upx.errors import UnusableWeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.specs import Asset, BackendSpec, ModelSpec

# The file to open, the order as JSON values, and the path to write: runs the worker, raises UpxError.
Convert: TypeAlias = Callable[[Path, Mapping[str, object], Path], None]
MOST_JSON = 64 << 20


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is taken out of a pickle: a group of tensors, without a prefix, without what matches ``leave``."""

    group: str
    strip: str = ""
    leave: tuple[str, ...] = ()


def inventory_of(source: Path, convert: Convert, folder: Path) -> Inventory:
    """What a pickle holds; ``folder`` is for what is written on the way.

    UnusableWeightsError for one that is damaged or hostile, told before anything opens it.
    """
    check_container(source)
    result = folder / "inventory.json"
    convert(source, {"do": "inventory"}, result)
    if result.stat().st_size > MOST_JSON:
        raise UnusableWeightsError(f"{source.name} holds more names than any model has", hint="is it the right file?")
    return from_json(json.loads(result.read_bytes()))


def extract(source: Path, chosen: Chosen, made: Path, convert: Convert) -> Inventory:
    """Write what was chosen to ``made``, a safetensors file, and read it back as what it is: a stranger's work."""
    order = {"do": "extract", "group": chosen.group, "strip": chosen.strip, "leave": list(chosen.leave)}
    convert(source, order, made)
    return read_header(made)


def choose(inventory: Inventory, backend: BackendSpec, model: ModelSpec, asset: Asset, *, name: str) -> Chosen:
    """What of a pickle is the asset; UnusableWeightsError names what is wrong first."""
    if not asset.layout:
        return only_group(inventory, name)
    verdict = recognise(inventory, [backend])
    for match in verdict.matches:
        if (match.model, match.role) == (model.name, asset.role):
            return chosen_by(match)
    raise unusable(name, verdict, f"{model.name}:{asset.role}")


def chosen_by(match: Match) -> Chosen:
    """What a match says is to be taken."""
    return Chosen(match.group, match.strip, match.ignored)


def unusable(name: str, verdict: Verdict, wanted: str = "") -> UnusableWeightsError:
    """The error for a file that is none of what it could be."""
    near = verdict.nearest
    what = f"{name} is not {wanted}" if wanted else f"{name} is no model that is known here"
    if verdict.matches:
        others = ", ".join(f"{match.model}:{match.role}" for match in verdict.matches)
        return UnusableWeightsError(
            f"{what}; it is {others}", hint=f"upx models import FILE --as {others.split(', ')[0]}"
        )
    if near is None:
        return UnusableWeightsError(what, hint="upx models info NAME says which files a model needs")
    like = f"{near.model}:{near.role}"
    words = near.problem if like == wanted else f"it is nearest to {like}: {near.problem}"
    return UnusableWeightsError(
        f"{what}: {words}",
        hint="get it again from where it came; a network of other sizes needs its config.json beside it",
    )


def only_group(inventory: Inventory, name: str) -> Chosen:
    """The one group of tensors of a file about whose tensors nothing is known."""
    groups: Sequence[str] = [group.path for group in inventory.groups if group.tensors]
    if len(groups) != 1:
        raise UnusableWeightsError(
            f"{name} holds {len(groups)} groups of tensors, and nothing says which one is meant",
            hint="save the one state dict as safetensors and import that",
        )
    return Chosen(groups[0])
