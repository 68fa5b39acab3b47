"""The way in: find, ensure, repair, check, use, list and prune the environments of one data folder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from upx.errors import EnvDamagedError
from upx.venvs.fingerprint import plan_for
from upx.venvs.marker import MARKER, find_marker, read_marker
from upx.venvs.venv import Damage, Progress, Repair, SiblingDamage, build_lock_path, no_report, use_lock_path
from upx.venvs.waiting import wait_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable

    from upx.config import Settings
    from upx.locks import HeldLock
    from upx.specs import EnvSpec
    from upx.venvs.build import Built
    from upx.venvs.fingerprint import Plan
    from upx.venvs.inventory import EnvRecord, Pruned
    from upx.venvs.venv import Report, Venv

# Another process may be fetching gigabytes; it reports its own failures.
BUILD_WAIT_S = 3 * 3600.0
# A prune holds the lock for as long as a rename and the removal of the files take.
USE_WAIT_S = 60.0


class EnvBuilder:
    """Environments below ``settings.venvs_dir``; any number of processes may have one of these at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def find(self, spec: EnvSpec, *, flavour: str = "auto", extras: Iterable[str] = ()) -> Venv | None:
        """The whole environment of ``spec``, told from its marker alone; None where it must be built first.

        Starts nothing. UsageError for a flavour or extra that does not exist.
        """
        return self._find(plan_for(spec, self._settings, flavour=flavour, extras=extras))

    def ensure(
        self,
        spec: EnvSpec,
        *,
        flavour: str = "auto",
        extras: Iterable[str] = (),
        offline: bool = False,
        on_progress: Report | None = None,
    ) -> Venv:
        """The environment of ``spec``, built if it is not there; others that want it wait for the one that builds.

        EnvBuildError and its subclasses say why it could not be built, EnvDamagedError that uv's cache is damaged.
        """
        plan = plan_for(spec, self._settings, flavour=flavour, extras=extras)
        if (found := self._find(plan)) is not None:
            return found
        report = on_progress or no_report
        with self._building(plan, report):
            return self._find(plan) or self._build(plan, report, offline=offline).venv

    def repair(
        self,
        spec: EnvSpec,
        *,
        flavour: str = "auto",
        extras: Iterable[str] = (),
        offline: bool = False,
        on_progress: Report | None = None,
    ) -> Repair:
        """Check every hash of the environment of ``spec``; if any is wrong, build the next generation.

        Damaged packages are fetched anew, past uv's cache, which shares the damage; then every other environment
        that holds one of them is checked and what is damaged reported. The old generation stays for those who use
        it, until a prune. Offline without a wheelhouse: EnvDamagedError, and nothing has changed.
        """
        plan = plan_for(spec, self._settings, flavour=flavour, extras=extras)
        report = on_progress or no_report
        with self._building(plan, report):
            old = self._find(plan)
            report(Progress("check", "checking every file"))
            damage = self.check(old, hashes=True) if old else []
            if old and not damage:
                return Repair(old)
            packages = frozenset(each.package for each in damage if each.package)
            built = self._build(plan, report, offline=offline, refetch=packages, hashes=True)
        skip = {built.venv.folder, old.folder if old else built.venv.folder}
        siblings = tuple(self._siblings(packages, skip=skip))
        return Repair(built.venv, tuple(damage), siblings, built.cache_cleaned)

    def check(self, venv: Venv, *, hashes: bool, packages: Collection[str] | None = None) -> list[Damage]:
        """What is damaged in ``venv``: by existence and size, with ``hashes`` by content too.

        ``packages``, normalised names, confines it to those.
        """
        from upx.venvs.check import check_recorded

        marker = read_marker(venv.folder)
        if marker is None:
            return [Damage(venv.folder / MARKER, "", "missing")]
        found = check_recorded(venv.folder, venv.site_packages, marker.records, hashes=hashes, packages=packages)
        if not venv.python.exists():
            found.append(Damage(venv.python, "", "missing"))
        return found

    def use(self, venv: Venv) -> HeldLock:
        """Keep ``venv`` from being pruned until the lock is closed, and by every process that inherits its ``fd``.

        EnvDamagedError when it has been removed since it was found.
        """
        lock = wait_lock(use_lock_path(venv.folder), timeout=USE_WAIT_S, shared=True)
        if read_marker(venv.folder) is not None:
            return lock
        lock.close()
        raise EnvDamagedError(f"{venv.folder.name} has been removed meanwhile", hint="run the command again")

    def list_envs(self, specs: Iterable[EnvSpec] = ()) -> list[EnvRecord]:
        """Every environment on the disk; ``specs`` say which are still wanted."""
        from upx.venvs.inventory import list_envs

        return list_envs(self._settings, specs)

    def prune(self, specs: Iterable[EnvSpec] = (), *, unused: bool = False) -> Pruned:
        """Remove what is incomplete or superseded, with ``unused`` all, except what is in use."""
        from upx.venvs.inventory import prune

        return prune(self._settings, specs, unused=unused)

    def _find(self, plan: Plan) -> Venv | None:
        found = find_marker(self._settings.venvs_dir, plan.spec.name, plan.key)
        return found[1].venv(found[0]) if found else None

    @contextmanager
    def _building(self, plan: Plan, report: Report) -> Generator[None]:
        from upx.venvs.failures import own_errors

        name, path = plan.spec.name, build_lock_path(self._settings, plan.spec.name)
        waiting = Progress("wait", f"another process is building {name}")
        with (
            own_errors(name, self._settings.venvs_dir),
            wait_lock(path, timeout=BUILD_WAIT_S, on_wait=lambda: report(waiting)),
        ):
            yield

    def _build(
        self,
        plan: Plan,
        report: Report,
        *,
        offline: bool,
        refetch: frozenset[str] = frozenset(),
        hashes: bool = False,
    ) -> Built:
        from upx.venvs.build import Request, build
        from upx.venvs.scratch import sweep

        sweep(self._settings.venvs_dir)
        offline = offline or self._settings.offline
        return build(Request(plan, self._settings, report, offline, refetch, hashes))

    def _siblings(self, packages: frozenset[str], *, skip: Collection[object]) -> Iterable[SiblingDamage]:
        for record in self.list_envs() if packages else ():
            if record.venv is None or record.superseded or record.folder in skip:
                continue
            if damage := self.check(record.venv, hashes=True, packages=packages):
                yield SiblingDamage(record.name, record.folder, tuple(damage))
