"""The backends there are: every ``backend.toml``, read and checked without importing anything of it.

Three places: our own (``upx_backends``), folders below ``<data dir>/backends``, and packages that name themselves
with an entry point in the group ``upx.backends``. A manifest that cannot be used, and a name that stands in two
places, make that one backend unusable and no other.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upx.errors import ManifestError, UnknownBackendError
from upx.manifest import build
from upx.manifest.reading import NoTomlError, parse_toml, read_bytes
from upx.notes import read_note, write_note
from upx.specs import BackendSpec, ColourSpec, EnvSpec, ParameterSpec, SizeRequirements, TilingSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upx.config import Settings

MANIFEST = "backend.toml"
GROUP = "upx.backends"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a backend lies: its folder, its dotted package and the folder of its locks (named ``stem.lock``)."""

    name: str
    folder: Path
    module: str
    locks: Path
    stem: str


class Catalog:
    """All manifests, read once when first asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read: dict[str, BackendSpec | ManifestError] | None = None

    def backends(self) -> list[BackendSpec]:
        """Every usable backend, our own first."""
        return [spec for spec in self._all().values() if isinstance(spec, BackendSpec)]

    def envs(self) -> list[EnvSpec]:
        """The environments of all that have one."""
        return [spec.env for spec in self.backends() if spec.kind != "weights"]

    def problems(self) -> list[ManifestError]:
        """What is wrong with the others."""
        return [error for error in self._all().values() if isinstance(error, ManifestError)]

    def broken(self) -> list[str]:
        """The names of those."""
        return [name for name, found in self._all().items() if isinstance(found, ManifestError)]

    def backend(self, name: str) -> BackendSpec:
        """The backend of that name; ManifestError when its manifest is wrong, UnknownBackendError when none is."""
        found = self._all().get(name)
        if isinstance(found, ManifestError):
            raise found
        if found is None:
            near = difflib.get_close_matches(name, self._all(), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UnknownBackendError(f"no backend is called {name!r}", hint=f"{hint}upx backends lists them all")
        return found

    def _all(self) -> dict[str, BackendSpec | ManifestError]:
        if self._read is None:
            self._read = _read_places(_places(self._settings), self._settings.cache_dir / "manifests")
        return self._read


def _places(settings: Settings) -> Iterator[Place]:
    own = package_folder("upx_backends")
    if own is not None:
        locks = locks_folder(own)
        for folder in _folders(own):
            yield Place(folder.name, folder, f"upx_backends.{folder.name}", locks, folder.name)
    for folder in _folders(settings.backends_dir):
        yield Place(folder.name, folder, f"upx_backends.{folder.name}", folder, "env")
    for point in importlib.metadata.entry_points(group=GROUP):
        folder = package_folder(point.value)
        if folder is not None:
            yield Place(point.name, folder, point.value, folder, "env")


def _folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"*/{MANIFEST}")) if root.is_dir() else []


def package_folder(dotted: str) -> Path | None:
    """The folder of a package, found without importing it or its parents."""
    top, *rest = dotted.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    for location in spec.submodule_search_locations:
        folder = Path(location).joinpath(*rest)
        if folder.is_dir():
            return folder
    return None


def locks_folder(own: Path) -> Path:
    """The folder of our own locks: ``envs`` of a checkout, else the installed ``upx_envs``."""
    checkout = own.parent.parent / "envs"
    if checkout.is_dir() and (checkout.parent / "pyproject.toml").is_file():
        return checkout
    return package_folder("upx_envs") or checkout


def _read_places(places: Iterable[Place], cache: Path) -> dict[str, BackendSpec | ManifestError]:
    found: dict[str, BackendSpec | ManifestError] = {}
    seen: dict[str, Place] = {}
    for place in places:
        if place.name in seen:
            found[place.name] = ManifestError(
                f"two backends are called {place.name!r}: {seen[place.name].folder} and {place.folder}",
                hint="rename or remove one of the two folders",
            )
            continue
        seen[place.name] = place
        try:
            found[place.name] = read_manifest(place, cache)
        except ManifestError as error:
            found[place.name] = error
    return _one_meaning(found)


def _one_meaning(found: dict[str, BackendSpec | ManifestError]) -> dict[str, BackendSpec | ManifestError]:
    """Make a backend unusable whose name, alias or model already means another one: the first keeps it."""
    owners: dict[str, BackendSpec] = {}
    checked = dict(found)
    for name, spec in found.items():
        if isinstance(spec, ManifestError):
            continue
        families = (alias for model in spec.models for alias in model.aliases)
        words = (name, *spec.aliases, *(model.name for model in spec.models), *families)
        taken = next((word for word in words if word in owners), None)
        if taken is None:
            owners |= dict.fromkeys(words, spec)
            continue
        checked[name] = ManifestError(
            f"{spec.folder / MANIFEST}: {taken!r} already means {owners[taken].name} in {owners[taken].folder}",
            hint="rename one of the two",
        )
    return checked


def read_manifest(place: Place, cache: Path) -> BackendSpec:
    """Read and check one manifest; ManifestError names the file and the first wrong key."""
    path = place.folder / MANIFEST
    try:
        table = _checked(read_bytes(path), path, cache)
    except (OSError, NoTomlError) as error:
        raise ManifestError(f"{path}: {error}", hint="backends/README.md describes the manifest") from error
    if table["name"] != place.name:
        raise ManifestError(
            f"{path}: name is {table['name']!r}, its place says {place.name!r}", hint="make the two the same"
        )
    spec = _spec(table, place)
    # Where nothing runs there is nothing to build.
    if spec.kind != "weights" and not spec.env.lock.is_file():
        hint = f"make it: uv pip compile --generate-hashes -o {spec.env.lock} REQUIREMENTS"
        raise ManifestError(f"{path}: its lock is missing: {spec.env.lock}", hint=hint)
    return spec


def _checked(content: bytes, path: Path, cache: Path) -> dict[str, Any]:
    """The manifest's table with its defaults, from the cache where these bytes were checked before.

    Importing pydantic takes longer than all else before the first tile; so what it found is kept under the digest
    of the manifest and of the rules.
    """
    rules = b"".join(path.read_bytes() for path in sorted(Path(build.__file__).parent.glob("*.py")))
    kept = cache / f"{hashlib.sha256(rules + content).hexdigest()}.json"
    note = read_note(kept)
    if (table := note.get("table")) and note.get("digest") == _digest(table):
        return table
    from upx.manifest.backend import parse

    table = parse(parse_toml(content), path)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        write_note(kept, {"digest": _digest(table), "table": table})
    return table


def _digest(table: object) -> str:
    """What a kept table must have, so that one that was altered or cut is checked anew instead of believed."""
    return hashlib.sha256(repr(table).encode()).hexdigest()


def _spec(table: dict[str, Any], place: Place) -> BackendSpec:
    lock = place.locks / f"{place.stem}.lock"
    cpu_lock = place.locks / f"{place.stem}.cpu.lock"
    env = EnvSpec(
        name=table["name"],
        lock=lock,
        python=table["env"]["python"],
        cpu_lock=cpu_lock if cpu_lock.is_file() else None,
        imports=tuple(table["env"]["imports"]),
        cpu_only=table["devices"] == ["cpu"],
    )
    return BackendSpec(
        name=table["name"],
        title=table["title"] or table["name"],
        folder=place.folder,
        module=place.module,
        env=env,
        models=tuple(build.build_model(model, table["assets"], table["licence"]) for model in table["models"]),
        default_model=table["default_model"],
        aliases=tuple(table["aliases"]),
        parameters=tuple(
            ParameterSpec(**_with(parameter, name=name, choices=tuple(parameter["choices"])))
            for name, parameter in table["parameters"].items()
        ),
        tiling=TilingSpec(**table["tiling"]),
        size=SizeRequirements(**table["size"]),
        colour=ColourSpec(**table["colour"]) if table["colour"] else None,
        environ=table["environ"],
        devices=tuple(table["devices"]),
        precisions=tuple(table["precisions"]),
        threads=table["threads"],
        workers=table["workers"],
        batch=table["batch"],
        description=table["description"],
        homepage=table["homepage"],
        kind=table["kind"],
    )


def _with(table: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**table, **changed}
