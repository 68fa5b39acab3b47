"""Where a model's files are: looked for in a fixed order, verified, and told why that one was taken.

    explicit (--weights, then the folder UPX_WEIGHTS) → store → the hub's own cache → a package of the environment

What is found in the first place where it lies is taken. A file of the store that is not what its receipt says is an
error and never passed over in silence; what the hub's cache holds under the name may be another revision, and is.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.assets.digests import Stamps
from upx.assets.store import Store
from upx.errors import WeightsError
from upx.specs import HubSource, PackageSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from upx.assets.receipts import Receipt
    from upx.config import Settings
    from upx.specs import Asset, BackendSpec, ModelSpec

Place: TypeAlias = Literal["explicit", "store", "hub", "package"]
PLACES: tuple[Place, ...] = ("explicit", "store", "hub", "package")
CONFIG = "config.json"
CONFIG_ROLE = "config"
PICKLES = (".pth", ".pt", ".ckpt")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be used. ``why`` says in words how it was found; ``sha256`` is of its bytes."""

    path: Path
    place: Place
    why: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that is nowhere; ``tried`` says of each place why not."""

    asset: Asset
    tried: tuple[str, ...]


class Finder:
    """Looks for the files of one backend's models. ``site_packages``: None until its environment is built."""

    def __init__(
        self,
        settings: Settings,
        backend: BackendSpec,
        *,
        weights: Path | None = None,
        site_packages: Path | None = None,
        stamps: Stamps | None = None,
    ) -> None:
        self.store = Store(settings.weights_dir)
        self._settings, self._backend = settings, backend
        self._weights = None if weights is None else weights.absolute()
        self._site = site_packages
        self._stamps = stamps or Stamps(settings.state_dir / "digests")

    def find(self, model: ModelSpec, asset: Asset, *, places: Sequence[Place] = PLACES) -> Found | Missing:
        """The file of one asset; WeightsError for one that is where it has to be and is not what it has to be."""
        look = {"explicit": self._explicit, "store": self._in_store, "hub": self._in_hub, "package": self._in_package}
        tried: list[str] = []
        for place in places:
            found = look[place](model, asset)
            if isinstance(found, Found):
                return found
            tried.append(f"{place}: {found}")
        return Missing(asset, tuple(tried))

    def find_all(self, model: ModelSpec) -> list[Found | Missing]:
        """Every file of a model, in the manifest's order."""
        return [self.find(model, asset) for asset in model.assets]

    def config(self, model: ModelSpec, files: Sequence[Found]) -> Found | None:
        """A ``config.json`` that somebody brought with weights: it overrides the released configuration.

        Beside weights that are named, it is taken as it is; in the store it came with an import and has a receipt.
        """
        if CONFIG_ROLE in {asset.role for asset in model.assets}:
            return None
        for found in files:
            path = found.path.with_name(CONFIG)
            if found.place == "explicit" and path.is_file() and path not in {each.path for each in files}:
                return self._taken(path, "explicit", f"beside {found.path.name}")
        if any(found.place == "store" for found in files):
            return self.kept(model, CONFIG_ROLE)
        return None

    def kept(self, model: ModelSpec, role: str) -> Found | None:
        """The store's file of one role, verified; WeightsError where it is not what its receipt says."""
        kept = self.store.find(model.name, role)
        if kept is None:
            return None
        receipt = kept.receipt
        trouble = kept.trouble or self._difference(kept.path, receipt.sha256)
        if trouble:
            raise WeightsError(f"weights of {model.name}: {receipt.file} {trouble}", hint=_mends(receipt))
        source = receipt.source.get("kind", "import")
        return Found(kept.path, "store", f"came by {source}, {receipt.time[:10]}", receipt.sha256)

    # Explicit

    def _explicit(self, model: ModelSpec, asset: Asset) -> Found | str:
        if self._weights is not None:
            return self._given(self._weights, model, asset)
        if self._settings.weights is None:
            return "nothing was named"
        name = stored_name(asset)
        for path in (self._settings.weights / model.name / name, self._settings.weights / name):
            if path.is_file():
                return self._taken(path, "explicit", f"in UPX_WEIGHTS, {self._settings.weights}, as it is")
        return f"not in {self._settings.weights}"

    def _given(self, weights: Path, model: ModelSpec, asset: Asset) -> Found | str:
        """From --weights: the file itself where a model has one, else from the folder; all of them or none."""
        if weights.is_file() and len(model.assets) == 1:
            self._refuse_pickle(weights, model, model.assets[0])
            return self._taken(weights, "explicit", "named by --weights, as it is")
        names = [stored_name(each) for each in model.assets]
        gone = [name for name in names if not (weights / name).is_file()]
        if gone or not names:
            raise WeightsError(
                f"{weights} is no set of weights for {model.name}: {', '.join(gone) or 'it has none'} not found",
                hint=f"give a folder that holds {', '.join(names)}",
            )
        return self._taken(weights / stored_name(asset), "explicit", f"in {weights}, named by --weights, as it is")

    def _refuse_pickle(self, weights: Path, model: ModelSpec, asset: Asset) -> None:
        """A pickle is opened in the utility that is there for it, not in a worker whose torch may be old."""
        if weights.suffix.lower() in PICKLES and self._backend.kind != "utility":
            raise WeightsError(
                f"{weights.name} is a pickle, which is never used as it comes",
                hint=f"upx models import {weights} --as {model.name}:{asset.role} keeps a safe copy of it",
            )

    # Store

    def _in_store(self, model: ModelSpec, asset: Asset) -> Found | str:
        kept = self.store.find(model.name, asset.role)
        if kept is None:
            return "not pulled or imported"
        receipt = kept.receipt
        if asset.sha256 and asset.sha256 not in {receipt.sha256, receipt.original} and receipt.verified != "import":
            return "another version's file is there"
        return self.kept(model, asset.role) or "removed meanwhile"

    def _difference(self, path: Path, sha256: str) -> str:
        try:
            return "" if self._stamps.sha256(path) == sha256 else "differs from its sha256"
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    # Hub

    def _in_hub(self, model: ModelSpec, asset: Asset) -> Found | str:  # noqa: ARG002  # as its neighbours
        if asset.file.endswith(PICKLES):
            return "a pickle is never used as it comes"
        why = "not published there"
        for source in asset.sources:
            if isinstance(source, HubSource):
                found = self._in_hub_cache(source, asset)
                if isinstance(found, Found):
                    return found
                why = found
        return why

    def _in_hub_cache(self, source: HubSource, asset: Asset) -> Found | str:
        cache = self._settings.hub.cache
        path = None if cache is None else hub_file(cache, source)
        if path is None:
            return f"{source.repository} is not in the cache"
        blob = path.resolve().name
        expected = asset.sha256 or (blob if _SHA256.fullmatch(blob) else "")
        try:
            sha256 = self._stamps.sha256(path)
        except OSError as error:
            return f"the cache's {asset.file} cannot be read ({error.strerror})"
        if expected and sha256 != expected:
            return f"the cache's {asset.file} differs from its sha256"
        return Found(path, "hub", f"in the hub's cache, {source.repository}", sha256)

    # Package

    def _in_package(self, model: ModelSpec, asset: Asset) -> Found | str:
        sources = [each for each in asset.sources if isinstance(each, PackageSource)]
        if not sources:
            return "in no package"
        if self._site is None:
            return f"the environment of {self._backend.name} is not built"
        for source in sources:
            path = self._site / source.package / source.path
            if path.is_file():
                self._refuse_damaged(path, model, asset)
                return self._taken(path, "package", f"in package {source.package} of the environment", verified=True)
        first = sources[0]
        return f"the environment has no {first.package}/{first.path}"

    def _refuse_damaged(self, path: Path, model: ModelSpec, asset: Asset) -> None:
        size = path.stat().st_size
        difference = f"has {size} bytes instead of {asset.size}" if asset.size and size != asset.size else ""
        if asset.sha256 and not difference:
            difference = self._difference(path, asset.sha256)
        if difference:
            raise WeightsError(
                f"weights of {model.name}: {asset.file} {difference}",
                hint=f"upx setup {self._backend.name} --repair brings it back",
            )

    def _taken(self, path: Path, place: Place, why: str, *, verified: bool = False) -> Found:
        try:
            return Found(path, place, f"{why}, verified" if verified else why, self._stamps.sha256(path))
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error


def _mends(receipt: Receipt) -> str:
    """How a damaged file of the store comes back."""
    if receipt.verified != "import":
        return f"upx models pull {receipt.model} mends it"
    again = f"import it again: upx models import FILE --as {receipt.model}:{receipt.role}"
    return f"{again}; or upx models rm {receipt.model}, and the released one can be pulled"


def stored_name(asset: Asset) -> str:
    """The name under which an asset is kept: a pickle is kept as the safetensors file that was made of it."""
    path = Path(asset.file)
    return path.with_suffix(".safetensors").as_posix() if path.suffix in PICKLES else asset.file


def hub_file(cache: Path, source: HubSource) -> Path | None:
    """The file of a hub's cache, by the layout that its library keeps; None where it is not there."""
    folder = cache / f"models--{source.repository.replace('/', '--')}"
    for commit in _commits(folder, source.revision):
        path = folder / "snapshots" / commit / source.path
        if path.is_file():
            return path
    return None


def _commits(folder: Path, revision: str) -> Iterator[str]:
    if _COMMIT.fullmatch(revision):
        yield revision
        return
    try:
        commit = (folder / "refs" / revision).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return
    if _COMMIT.fullmatch(commit):
        yield commit


def digest(files: Sequence[tuple[str, Found]]) -> str:
    """One sha256 for all of a model's files, by role: a single file's own, else that of the list."""
    if len(files) == 1:
        return files[0][1].sha256
    lines = "".join(f"{role}:{found.sha256}\n" for role, found in sorted(files, key=lambda pair: pair[0]))
    return hashlib.sha256(lines.encode()).hexdigest()
