"""Import: files that a person brought become files of the store, once it is known whose they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upx.assets.conversion import Chosen, extract, inventory_of
from upx.assets.digests import sha256_of
from upx.assets.find import CONFIG, PICKLES
from upx.assets.inspect.onnx import read_onnx
from upx.assets.inspect.safetensors import read_header
from upx.assets.obtain import Need
from upx.assets.receipts import Origin, Receipt, now
from upx.errors import UnusableWeightsError
from upx.models.placing import Place, by_name, of_format, recognised, wanted_places
from upx.models.selection import by_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def import_path(shelf: Shelf, path: Path, *, name: str = "") -> list[Imported]:
    """Import one file, or all that is known in a folder; ``name`` is MODEL or MODEL:ROLE where it cannot be told.

    UnusableWeightsError names what is wrong with a file; UsageError where it could be several models'.
    """
    if path.is_dir():
        return _Folder(shelf, path, name).run()
    if not path.is_file():
        raise UnusableWeightsError(f"{path} is no file", hint="give a file of weights, or a folder that holds some")
    return _import_file(shelf, path, wanted_places(shelf, name), hint_of=path.parent.name)


def _import_file(shelf: Shelf, path: Path, places: Sequence[Place], *, hint_of: str = "") -> list[Imported]:
    digest = sha256_of(path)
    exact = [each for each in places if each.asset.sha256 == digest]
    if exact and path.suffix not in PICKLES:
        return [_keep(shelf, path, each, digest, notes=("the released file",)) for each in exact]
    places = of_format(path, places)
    if path.suffix in PICKLES:
        found = recognised(path, inventory_of(path, shelf.convert), places, hint_of=hint_of)
        done = [_convert(shelf, path, each, digest) for each in found]
    elif path.suffix in {".safetensors", ".onnx"}:
        inventory = read_header(path) if path.suffix == ".safetensors" else read_onnx(path)
        found = recognised(path, inventory, places, hint_of=hint_of)
        done = [_take(shelf, path, each, digest) for each in found]
    else:
        done = [_keep(shelf, path, each, digest) for each in by_name(path, places)]
    return done + _config(shelf, path, done)


def _take(shelf: Shelf, path: Path, place: Place, digest: str) -> Imported:
    """A safe file: kept as it is where nothing has to be taken out of it."""
    chosen = place.chosen or Chosen("")
    if chosen.strip or chosen.leave:
        return _convert(shelf, path, place, digest)
    return _keep(shelf, path, place, digest)


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


def _keep(shelf: Shelf, path: Path, place: Place, digest: str, *, notes: tuple[str, ...] = ()) -> Imported:
    size = path.stat().st_size
    target = shelf.store.copy_in(path, _receipt(shelf, place, digest, size, path))
    return Imported(path, place.member.model.name, place.asset.role, target, digest, size, notes)


def _receipt(shelf: Shelf, place: Place, sha256: str, size: int, path: Path, *, original: str = "") -> Receipt:
    need = Need(place.member.backend, place.member.model, place.asset)
    released = place.asset.sha256 and place.asset.sha256 in {sha256, original}
    source = {"kind": "import", "file": path.name}
    origin = Origin(source, verified="manifest" if released else "import", original=original)
    return shelf.obtainer().receipt(need, sha256, size, origin)


def _config(shelf: Shelf, path: Path, done: Iterable[Imported]) -> list[Imported]:
    """A ``config.json`` beside weights comes along: it overrides the released configuration."""
    config = path.with_name(CONFIG)
    if not config.is_file() or path.name == CONFIG:
        return []
    content = config.read_bytes()[: MOST_CONFIG + 1]
    try:
        is_table = len(content) <= MOST_CONFIG and isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        is_table = False
    if not is_table:
        raise UnusableWeightsError(f"{config} is no JSON object", hint="mend it, or move it away from the weights")
    kept: list[Imported] = []
    for each in (each for each in done if not _knows_config(shelf, each)):
        folder = Path(each.path).relative_to(shelf.store.folder(each.model)).parent
        digest = sha256_of(config)
        receipt = Receipt(
            each.model, "config", (folder / CONFIG).as_posix(), digest, len(content),
            source={"kind": "import", "file": CONFIG}, verified="import", time=now(),
        )  # fmt: skip
        target = shelf.store.copy_in(config, receipt)
        kept.append(
            Imported(config, each.model, "config", target, digest, len(content), ("overrides the released one",))
        )
    return kept


def _knows_config(shelf: Shelf, each: Imported) -> bool:
    """Whether the ``config.json`` beside that file is one of the model's own files."""
    (member,) = by_names(shelf, [each.model])
    files = {asset.role: Path(asset.file) for asset in member.model.assets}
    return files[each.role].with_name(CONFIG) in files.values()


class _Folder:
    """A folder of files: in the layout of the models that know it by its paths, else each file by itself."""

    def __init__(self, shelf: Shelf, folder: Path, name: str) -> None:
        self._shelf, self._folder = shelf, folder
        self._places = wanted_places(shelf, name)

    def run(self) -> list[Imported]:
        """Import what is known; UnusableWeightsError where nothing is, or a file of a known name is wrong."""
        placed = self._by_paths()
        if not placed:
            placed = {path: self._places for path in sorted(self._folder.iterdir()) if path.suffix in SUFFIXES}
            placed.pop(self._folder / CONFIG, None)
        if not placed:
            raise UnusableWeightsError(
                f"{self._folder} holds no weights that are known here",
                hint="upx models info NAME says which files a model needs",
            )
        return [
            each
            for path, places in placed.items()
            for each in _import_file(self._shelf, path, places, hint_of=self._folder.name)
        ]

    def _by_paths(self) -> dict[Path, list[Place]]:
        """File to places, where a model's files lie under the paths that its manifest gives, as diffusers has them."""
        found: dict[Path, list[Place]] = {}
        for place in self._places:
            path = self._folder / place.asset.file
            if "/" in place.asset.file and path.is_file():
                found.setdefault(path, []).append(place)
        return found
