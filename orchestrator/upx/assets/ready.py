"""All files of a model, found or brought, before a worker may read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.assets.find import CONFIG_ROLE, Finder, Found, Missing, digest
from upx.assets.obtain import Need, one_error, ways
from upx.errors import WeightsError
from upx.specs import PackageSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from upx.assets.obtain import Obtainer
    from upx.specs import Asset, BackendSpec, ModelSpec


@dataclass(frozen=True, slots=True)
class Files:
    """A model's files by role, and one sha256 for all of them."""

    paths: dict[str, Path]
    sha256: str


@dataclass(frozen=True, slots=True)
class Readying:
    """One model that is about to be used. ``obtain`` makes what can fetch, when something has to be fetched."""

    backend: BackendSpec
    model: ModelSpec
    obtain: Callable[[], Obtainer]
    offline: bool

    def bring_remote(self, finder: Finder) -> None:
        """Fetch what no package of the environment holds, before an environment of gigabytes is built for it.

        WeightsError and its subclasses name what is missing, and how to bring it.
        """
        missing = [found.asset for found in finder.find_all(self.model) if isinstance(found, Missing)]
        needs = [self._need(asset) for asset in missing if not _in_package(asset.sources)]
        # What only a person can get is said before gigabytes of the rest are fetched.
        by_hand = [need for need in needs if not need.remote]
        self._bring(by_hand or needs)

    def files(self, finder: Finder) -> Files:
        """The files, now that the environment is built; WeightsError and its subclasses where one cannot be had."""
        missing = [found.asset for found in finder.find_all(self.model) if isinstance(found, Missing)]
        self._bring([need for need in map(self._need, missing) if need.remote])
        found = [self._found(each) for each in finder.find_all(self.model)]
        pairs = [(asset.role, each) for asset, each in zip(self.model.assets, found, strict=True)]
        if (config := finder.config(self.model, found)) is not None:
            pairs.append((CONFIG_ROLE, config))
        return Files({role: each.path for role, each in pairs}, digest(pairs))

    def _need(self, asset: Asset) -> Need:
        return Need(self.backend, self.model, asset)

    def _bring(self, needs: Sequence[Need]) -> None:
        failed = self.obtain().obtain(needs, offline=self.offline) if needs else []
        if failed:
            raise one_error(failed)

    def _found(self, each: Found | Missing) -> Found:
        if isinstance(each, Found):
            return each
        name = self.backend.name
        packaged = f"upx setup {name} --repair brings it back, or " if _in_package(each.asset.sources) else ""
        raise WeightsError(
            f"weights of {self.model.name}: {each.asset.file} is nowhere: {'; '.join(each.tried)}",
            hint=f"{packaged}{ways(self._need(each.asset))}",
        )


def _in_package(sources: tuple[object, ...]) -> bool:
    return any(isinstance(source, PackageSource) for source in sources)
