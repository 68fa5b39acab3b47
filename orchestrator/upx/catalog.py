"""The backends there are: every ``backend.toml``, read and checked without importing anything of it.

Three places: our own (``upx_backends``), folders below ``<data dir>/backends``, and packages that name themselves
with an entry point in the group ``upx.backends``. A manifest that cannot be used, and a name that stands in two
places, make that one backend unusable and no other.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upx.errors import ManifestError, UnknownBackendError
from upx.specs import (
    Asset,
    BackendSpec,
    EnvSpec,
    ModelSpec,
    PackageSource,
    ParameterSpec,
    SizeRequirements,
    TilingSpec,
)

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
            self._read = _read_places(_places(self._settings))
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


def _read_places(places: Iterable[Place]) -> dict[str, BackendSpec | ManifestError]:
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
            found[place.name] = read_manifest(place)
        except ManifestError as error:
            found[place.name] = error
    return found


def read_manifest(place: Place) -> BackendSpec:
    """Read and check one manifest; ManifestError names the file and the first wrong key."""
    path = place.folder / MANIFEST
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: {error}", hint="backends/README.md describes the manifest") from error
    from upx.manifest import parse  # pydantic: 100 ms that only who reads a manifest pays

    manifest = parse(table, path)
    if manifest.name != place.name:
        raise ManifestError(
            f"{path}: name is {manifest.name!r}, its place says {place.name!r}", hint="make the two the same"
        )
    return _spec(manifest, place)


def _spec(manifest: Any, place: Place) -> BackendSpec:
    lock = place.locks / f"{place.stem}.lock"
    cpu_lock = place.locks / f"{place.stem}.cpu.lock"
    return BackendSpec(
        name=manifest.name,
        title=manifest.title or manifest.name,
        folder=place.folder,
        module=place.module,
        env=EnvSpec(
            name=manifest.name,
            lock=lock,
            python=manifest.env.python,
            cpu_lock=cpu_lock if cpu_lock.is_file() else None,
            imports=tuple(manifest.env.imports),
        ),
        models=tuple(_model(model) for model in manifest.models),
        default_model=manifest.default_model,
        aliases=tuple(manifest.aliases),
        parameters=tuple(_parameter(name, table) for name, table in manifest.parameters.items()),
        tiling=TilingSpec(**dict(manifest.tiling)),
        size=SizeRequirements(**dict(manifest.size)),
        environ=dict(manifest.environ),
        devices=tuple(manifest.devices),
        precisions=tuple(manifest.precisions),
        threads=manifest.threads,
        workers=manifest.workers,
        batch=manifest.batch,
        description=manifest.description,
        homepage=manifest.homepage,
    )


def _parameter(name: str, table: Any) -> ParameterSpec:
    fields: dict[str, Any] = dict(table)
    fields.update(name=name, choices=tuple(table.choices))
    return ParameterSpec(**fields)


def _model(table: Any) -> ModelSpec:
    fields: dict[str, Any] = dict(table)
    assets = tuple(
        Asset(a.role, a.file, a.sha256, a.size, PackageSource(a.source.package, a.source.path)) for a in table.assets
    )
    fields.update(assets=assets, options=dict(table.options))
    return ModelSpec(**fields)
