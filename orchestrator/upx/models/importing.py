"""Import: files that a person brought become files of the store, once it is known whose they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upx.assets.conversion import Chosen, extract, inventory_of
from upx.assets.digests import sha256_of
from upx.assets.find import CONFIG, CONFIG_ROLE, PICKLES
from upx.assets.inspect.onnx import read_onnx
from upx.assets.inspect.safetensors import read_header
from upx.assets.obtain import Need
from upx.assets.receipts import Origin, Receipt, now
from upx.errors import UnusableWeightsError, UsageError, WeightsError
from upx.models.placing import Place, by_name, format_of, of_format, recognised, wanted_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upx.models.shelf import Shelf

SUFFIXES = (".safetensors", *PICKLES, ".onnx", ".bin", ".param", ".json")
MOST_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class Imported:
    """One file that is in the store now, for ``model`` under ``role``; ``notes`` say what was done to it."""

    source: Path
    model: str
    role: str
    path: Path
    sha256: str
    size: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done with one file: everything is decided, and nothing written yet."""

    path: Path
    digest: str
    places: tuple[Place, ...]
    config: Path | None = None
    notes: tuple[str, ...] = ()


def import_path(shelf: Shelf, path: Path, *, name: str = "") -> list[Imported]:
    """Import one file, or all that is known in a folder; ``name`` is MODEL or MODEL:ROLE where it cannot be told.

    UnusableWeightsError names what is wrong with a file; UsageError where it could be several models', or two files
    are one role's; WeightsError while a model is in use. All of that before anything is written.
    """
    try:
        plans = _plans(shelf, path, name)
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise UnusableWeightsError(f"{str(path)[:200]} cannot be read: {what}", hint="check the path") from error
    _refuse_clashes(plans)
    _refuse_used(shelf, plans)
    return [each for plan in plans for each in _carry_out(shelf, plan)]


def _plans(shelf: Shelf, path: Path, name: str) -> list[_Plan]:
    places = wanted_places(shelf, name)
    if path.is_dir():
        found = _in_folder(path, places)
        return [_plan(shelf, each, where, hint_of=path.name) for each, where in found.items()]
    if not path.is_file():
        raise UnusableWeightsError(f"{path} is no file", hint="give a file of weights, or a folder that holds some")
    return [_plan(shelf, path, places, hint_of=path.parent.name)]


def _in_folder(folder: Path, places: Sequence[Place]) -> dict[Path, Sequence[Place]]:
    """The files of a folder: in the layout of the models that know it by its paths, as diffusers has them, else all."""
    found: dict[Path, Sequence[Place]] = {}
    for place in places:
        path = folder / place.asset.file
        if "/" in place.asset.file and path.is_file():
            found[path] = (*found.get(path, ()), place)
    if not found:
        files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file())
        found = {path: places for path in files if path.name != CONFIG}
    if not found:
        raise UnusableWeightsError(
            f"{folder} holds no weights that are known here", hint="upx models info NAME says which files a model needs"
        )
    return found


def _plan(shelf: Shelf, path: Path, places: Sequence[Place], *, hint_of: str) -> _Plan:
    digest, form = sha256_of(path), format_of(path)
    exact = tuple(each for each in places if each.asset.sha256 == digest)
    if exact and form != "pickle":
        return _Plan(path, digest, exact, notes=("the released file",))
    if form == "other":
        return _Plan(path, digest, tuple(by_name(path, places)))
    places = of_format(path, form, places)
    if form == "pickle":
        with shelf.store.scratch() as folder:
            inventory = inventory_of(path, shelf.convert, folder)
    else:
        inventory = read_header(path) if form == "safetensors" else read_onnx(path)
    found = recognised(path, inventory, places, hint_of=hint_of)
    return _Plan(path, digest, tuple(found), _config_beside(path))


def _config_beside(path: Path) -> Path | None:
    """A ``config.json`` beside weights comes along; UnusableWeightsError where it is none."""
    config = path.with_name(CONFIG)
    if not config.is_file():
        return None
    with config.open("rb") as file:
        content = file.read(MOST_CONFIG + 1)
    try:
        is_table = len(content) <= MOST_CONFIG and isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        is_table = False
    if not is_table:
        raise UnusableWeightsError(f"{config} is no JSON object", hint="mend it, or move it away from the weights")
    return config


def _refuse_clashes(plans: Sequence[_Plan]) -> None:
    taken: dict[tuple[str, str], Path] = {}
    for plan in plans:
        for place in plan.places:
            key = (place.member.model.name, place.asset.role)
            if key in taken:
                raise UsageError(
                    f"{taken[key].name} and {plan.path.name} are both {':'.join(key)}",
                    hint="import the one that is meant",
                )
            taken[key] = plan.path


def _refuse_used(shelf: Shelf, plans: Sequence[_Plan]) -> None:
    """Files are not replaced under a worker that may read them again."""
    running = shelf.running()
    for name in {place.member.model.name for plan in plans for place in plan.places}:
        if name in running or shelf.store.in_use(name):
            raise WeightsError(f"{name} is in use, and its files stay as they are", hint="upx stop --all, then again")


def _carry_out(shelf: Shelf, plan: _Plan) -> list[Imported]:
    done: list[Imported] = []
    for place in plan.places:
        chosen = place.chosen
        whole = chosen is None or (not (chosen.strip or chosen.leave) and format_of(plan.path) != "pickle")
        made = _keep(shelf, plan, place) if whole else _convert(shelf, plan.path, place, plan.digest)
        done += [made, *_config(shelf, plan.config, made, place)]
    return done


def _convert(shelf: Shelf, path: Path, place: Place, digest: str) -> Imported:
    chosen = place.chosen or Chosen("")
    with shelf.store.making() as made:
        shelf.store.need(path.stat().st_size)
        kept = extract(path, chosen, made, shelf.convert)
        size, sha256 = made.stat().st_size, sha256_of(made)
        target = shelf.store.put(made, _receipt(shelf, place, sha256, size, path, original=digest))
    count = sum(len(group.tensors) for group in kept.groups)
    notes = [f"{count} tensors, converted to safetensors"]
    notes += [f"out of {chosen.group!r}"] if chosen.group else []
    notes += [f"without the prefix {chosen.strip!r}"] if chosen.strip else []
    notes += [f"without {', '.join(chosen.leave)}"] if chosen.leave else []
    return Imported(path, place.member.model.name, place.asset.role, target, sha256, size, tuple(notes))


def _keep(shelf: Shelf, plan: _Plan, place: Place) -> Imported:
    size = plan.path.stat().st_size
    target = shelf.store.copy_in(plan.path, _receipt(shelf, place, plan.digest, size, plan.path))
    return Imported(plan.path, place.member.model.name, place.asset.role, target, plan.digest, size, plan.notes)


def _receipt(shelf: Shelf, place: Place, sha256: str, size: int, path: Path, *, original: str = "") -> Receipt:
    need = Need(place.member.backend, place.member.model, place.asset)
    released = place.asset.sha256 and place.asset.sha256 in {sha256, original}
    source = {"kind": "import", "file": path.name}
    origin = Origin(source, verified="manifest" if released else "import", original=original)
    return shelf.obtainer().receipt(need, sha256, size, origin)


def _config(shelf: Shelf, config: Path | None, made: Imported, place: Place) -> list[Imported]:
    """Keep the configuration that came with weights, for as long as these weights are kept and no longer."""
    assets = place.member.model.assets
    if CONFIG_ROLE in {asset.role for asset in assets} or CONFIG in {Path(asset.file).name for asset in assets}:
        return []
    if config is None:
        shelf.store.drop(made.model, CONFIG_ROLE)
        return []
    folder = made.path.relative_to(shelf.store.folder(made.model)).parent
    digest, size = sha256_of(config), config.stat().st_size
    receipt = Receipt(
        made.model, CONFIG_ROLE, (folder / CONFIG).as_posix(), digest, size,
        source={"kind": "import", "file": CONFIG}, verified="import", time=now(),
    )  # fmt: skip
    target = shelf.store.copy_in(config, receipt)
    return [Imported(config, made.model, CONFIG_ROLE, target, digest, size, ("overrides the released one",))]
