"""The shelf: what every task about models is given, wired once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from upx.assets.digests import Stamps
from upx.assets.find import Finder
from upx.assets.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upx.assets.conversion import Convert
    from upx.assets.obtain import Obtainer
    from upx.assets.store import Kept
    from upx.catalog import Catalog
    from upx.config import Settings
    from upx.specs import BackendSpec, ModelSpec
    from upx.venvs.builder import EnvBuilder


@dataclass(frozen=True, slots=True)
class Member:
    """A model and the backend that it belongs to."""

    backend: BackendSpec
    model: ModelSpec


@dataclass(frozen=True)
class Shelf:
    """Catalogue, environments and store of one host. ``convert`` opens pickles in a worker of their own."""

    settings: Settings
    catalog: Catalog
    envs: EnvBuilder
    convert: Convert
    on_event: Callable[[object], None]

    @cached_property
    def store(self) -> Store:
        """The store of weights."""
        return Store(self.settings.weights_dir)

    def members(self) -> list[Member]:
        """Every model that serves pictures, in the order of the backends."""
        specs = [spec for spec in self.catalog.backends() if spec.kind != "utility"]
        return [Member(spec, model) for spec in specs for model in spec.models]

    def finder(self, backend: BackendSpec, *, fresh: bool = False) -> Finder:
        """Looks for a backend's files; ``fresh`` reads every byte and believes no stamp."""
        packages = self.site_packages(backend)
        return Finder(self.settings, backend, site_packages=packages, stamps=self.stamps(fresh=fresh))

    def site_packages(self, backend: BackendSpec) -> Path | None:
        """The packages of a backend's environment; None until it is built."""
        found = None if backend.kind == "weights" else self.envs.find(backend.env)
        return None if found is None else found.site_packages

    def difference(self, kept: Kept, *, fresh: bool = False) -> str:
        """What is wrong with the bytes of a file of the store, by its stamp unless ``fresh``; empty: nothing."""
        try:
            same = self.stamps(fresh=fresh).sha256(kept.path) == kept.receipt.sha256
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return "" if same else "differs from its sha256"

    def stamps(self, *, fresh: bool = False) -> Stamps:
        """Digests of files that were read before; ``fresh`` believes none of them."""
        return Stamps(self.settings.state_dir / "digests", believe=not fresh)

    def obtainer(self) -> Obtainer:
        """Brings files that are missing."""
        from upx.assets.fetch import Network
        from upx.assets.obtain import Obtainer

        network = Network.from_settings(self.settings)
        return Obtainer(self.settings, self.store, network, convert=self.convert, report=self.on_event)

    def running(self) -> set[str]:
        """The models that workers hold right now."""
        from upx.workers.registry import list_workers

        return {worker.model for worker in list_workers(self.settings)}
