"""Pull: make sure that models and environments are here, whole, for a time without a network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from upx.assets.find import Found, Missing
from upx.assets.licences import require_licence
from upx.assets.obtain import Need, mend, one_error
from upx.errors import NotReadyError, UpxError, WeightsError
from upx.models.upkeep import make_room, set_pin
from upx.specs import PackageSource

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from upx.assets.find import Finder
    from upx.models.selection import Selection
    from upx.models.shelf import Member, Shelf
    from upx.models.upkeep import Collected
    from upx.specs import Asset, BackendSpec


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of one model. ``files`` were brought; ``size`` in bytes of all its files; ``error`` when failed."""

    member: Member
    status: Literal["present", "pulled", "failed"]
    files: tuple[str, ...] = ()
    size: int = 0
    seconds: float = 0.0
    error: UpxError | None = None


def pull(
    shelf: Shelf,
    selection: Selection,
    *,
    offline: bool,
    accept_licence: bool = False,
    cancel: threading.Event | None = None,
) -> list[Pulled]:
    """Bring what is missing and mend what is damaged, every byte read; one that fails stops no other."""
    began = time.monotonic()
    tasks = [_Task(shelf, member, offline=offline) for member in selection.members]
    for task in tasks:
        task.attempt(accept_licence=accept_licence)
    needs = [(task, need) for task in tasks if task.error is None for need in task.needs]
    if needs:
        failed = shelf.obtainer().obtain([need for _, need in needs], offline=offline, cancel=cancel)
        for task in tasks:
            own = [(need, error) for need, error in failed if need in task.needs]
            task.error = task.error or (one_error(own) if own else None)
    for task in tasks:
        task.finish()
        if task.member.model.name in selection.pins and task.error is None:
            set_pin(shelf, task.member.model.name, pinned=True)
    return [task.result(time.monotonic() - began) for task in tasks]


def keep_below_cap(shelf: Shelf, done: Sequence[Pulled]) -> Collected | None:
    """Evict other models while the store is above its cap; None where it has none, or nothing had to go."""
    if shelf.settings.store_cap is None:
        return None
    evicted = make_room(shelf, shelf.settings.store_cap, keep={each.member.model.name for each in done})
    return evicted if evicted.evicted or evicted.freed else None


def build_envs(
    shelf: Shelf, specs: Iterable[BackendSpec], *, offline: bool
) -> list[tuple[BackendSpec, UpxError | None]]:
    """Build environments that are not there yet; each with what went wrong, if anything."""
    done: list[tuple[BackendSpec, UpxError | None]] = []
    for spec in specs:
        try:
            shelf.envs.ensure(spec.env, offline=offline, on_progress=shelf.on_event)
        except UpxError as error:
            done.append((spec, error))
        else:
            done.append((spec, None))
    return done


class _Task:
    """One model on its way."""

    def __init__(self, shelf: Shelf, member: Member, *, offline: bool) -> None:
        self.member = member
        self.needs: list[Need] = []
        self.error: UpxError | None = None
        self._shelf, self._offline = shelf, offline
        self._brought: list[str] = []
        self._size = 0

    def attempt(self, *, accept_licence: bool) -> None:
        """Find, build and mend with what this machine has; what is left over becomes ``needs``."""
        try:
            require_licence(self.member.model, self._shelf.settings, accept_now=accept_licence)
            finder = self._shelf.finder(self.member.backend, fresh=True)
            if self._has_to_build(finder):
                spec = self.member.backend
                self._shelf.envs.ensure(spec.env, offline=self._offline, on_progress=self._shelf.on_event)
                self._brought.append(f"environment {spec.name}")
                finder = self._shelf.finder(spec, fresh=True)
            for asset in self.member.model.assets:
                self._look(finder, asset)
        except UpxError as error:
            self.error = error

    def finish(self) -> None:
        """Look again at what was to be brought."""
        if self.error is not None:
            return
        finder = self._shelf.finder(self.member.backend)
        try:
            for asset in self.member.model.assets:
                found = finder.find(self.member.model, asset)
                if isinstance(found, Missing):
                    raise WeightsError(
                        f"weights of {self.member.model.name}: {asset.file} is nowhere: {'; '.join(found.tried)}",
                        hint=f"upx models info {self.member.model.name}",
                    )
                self._size += found.path.stat().st_size
        except UpxError as error:
            self.error = error

    def result(self, seconds: float) -> Pulled:
        """What became of it."""
        if self.error is not None:
            return Pulled(self.member, "failed", seconds=seconds, error=self.error)
        status: Literal["present", "pulled"] = "pulled" if self._brought or self.needs else "present"
        files = (*self._brought, *(need.asset.file for need in self.needs))
        return Pulled(self.member, status, files, self._size, seconds)

    def _has_to_build(self, finder: Finder) -> bool:
        """Whether a file can come out of an environment that is not built yet."""
        if self.member.backend.kind == "weights" or self._shelf.site_packages(self.member.backend) is not None:
            return False
        return any(
            isinstance(source, PackageSource)
            for asset in self.member.model.assets
            for source in asset.sources
            if self._is_missing(finder, asset)
        )

    def _is_missing(self, finder: Finder, asset: Asset) -> bool:
        try:
            return isinstance(finder.find(self.member.model, asset), Missing)
        except NotReadyError:
            return True

    def _look(self, finder: Finder, asset: Asset) -> None:
        need = Need(self.member.backend, self.member.model, asset)
        try:
            found = finder.find(self.member.model, asset)
        except WeightsError:
            kept = finder.store.find(self.member.model.name, asset.role)
            # What lies in a package is mended by setup --repair; what a person brought is not replaced unasked.
            if kept is None or kept.receipt.verified == "import":
                raise
            self._mend(finder, need)
            return
        if not isinstance(found, Found):
            self.needs.append(need)

    def _mend(self, finder: Finder, need: Need) -> None:
        """The store's copy is damaged: from another place here that still has it, else from the network."""
        if mend(finder, self._shelf.obtainer(), need):
            self._brought.append(need.asset.file)
        else:
            self.needs.append(need)
