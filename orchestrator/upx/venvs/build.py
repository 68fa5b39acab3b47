"""Build one environment beside, check it, and give it its name: whole, or not there at all.

Called under the build lock of its name. Order: virtualenv, packages, RECORD check, import probe, marker, rename.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.errors import EnvDamagedError
from upx.venvs import lockfile
from upx.venvs.check import check_installed, records_of
from upx.venvs.failures import Context, bring
from upx.venvs.fingerprint import fingerprint
from upx.venvs.marker import Marker, env_folders, folder_name, read_marker, write_marker
from upx.venvs.probe import probe
from upx.venvs.scratch import Scratch, rename
from upx.venvs.uv import Uv, clean_env, find_uv, uv_env
from upx.venvs.venv import Progress, python_path, site_packages_path

if TYPE_CHECKING:
    from pathlib import Path

    from upx.config import Settings
    from upx.venvs.fingerprint import Plan
    from upx.venvs.venv import Damage, Report, Venv

# The second try fetches what the first found damaged in uv's cache.
_TRIES = 2


@dataclass(frozen=True, slots=True)
class Request:
    """One build: ``refetch`` are packages (normalised) that uv's cache is not trusted for, ``hashes`` checks all."""

    plan: Plan
    settings: Settings
    report: Report
    offline: bool = False
    refetch: frozenset[str] = frozenset()
    hashes: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """A new environment; ``cache_cleaned`` is False when damaged packages may still lie in uv's cache."""

    venv: Venv
    cache_cleaned: bool


def build(request: Request) -> Built:
    """Build it; EnvBuildError and its subclasses, EnvDamagedError when a source yields damaged files only."""
    root, name = request.settings.venvs_dir, request.plan.spec.name
    _refuse_untrusted(request, request.refetch)
    with Scratch(root, name) as scratch:
        uv = _uv_for(request, scratch)
        refetched = _install(request, uv, scratch.folder)
        marker = _mark(request, uv, scratch.folder / "venv")
        folder = _publish(scratch.folder / "venv", root, marker)
        # Only now: a build that failed leaves the cache as it was.
        cleaned = uv.clean(refetched)
    request.report(Progress("done", f"{name} is ready"))
    return Built(marker.venv(folder), cleaned)


def _uv_for(request: Request, scratch: Scratch) -> Uv:
    settings, plan = request.settings, request.plan
    cache = (settings.uv_cache,) if settings.uv_cache else ()
    return Uv(
        binary=find_uv(settings),
        env=uv_env(settings),
        about=Context(plan.spec.name, plan.request, plan.locks[0], (scratch.folder, *cache)),
        cwd=scratch.folder,
        report=request.report,
        keep=(scratch.lock.fd,),
        wheelhouse=settings.wheelhouse,
        offline=request.offline,
    )


def _install(request: Request, uv: Uv, folder: Path) -> frozenset[str]:
    """Install into ``folder/venv``; the packages that were fetched past uv's cache."""
    refetch = request.refetch
    damage: list[Damage] = []
    for _ in range(_TRIES):
        _lay_out(request, uv, folder, refetch)
        request.report(Progress("check", "checking files"))
        venv = folder / "venv"
        damage = check_installed(venv, site_packages_path(venv), hashes=request.hashes)
        if not damage:
            return refetch
        refetch |= {each.package for each in damage if each.package}
        _refuse_untrusted(request, refetch)
    first, name = damage[0], request.plan.spec.name
    message = f"{name} cannot be built whole: {first.path.name} of {first.package} is damaged where it comes from"
    raise EnvDamagedError(message, hint="another index (UPX_INDEX) or wheelhouse (UPX_WHEELHOUSE) may have it whole")


def _lay_out(request: Request, uv: Uv, folder: Path, refetch: frozenset[str]) -> None:
    venv, locks = folder / "venv", request.plan.locks
    request.report(Progress("python", f"Python {request.plan.request}"))
    uv.make_venv(venv)
    request.report(Progress("resolve", "reading the lock"))
    if not refetch:
        uv.sync(python_path(venv), locks)
        return
    trusted, rest = _split(locks, refetch, folder)
    if trusted:
        uv.sync(python_path(venv), trusted)
    for lock in rest:
        uv.fetch(python_path(venv), lock, cache=folder / "cache")


def _split(locks: tuple[Path, ...], packages: frozenset[str], folder: Path) -> tuple[list[Path], list[Path]]:
    """Write ``locks`` anew into ``folder``: those without ``packages``, and those of them alone."""
    trusted: list[Path] = []
    rest: list[Path] = []
    for number, lock in enumerate(locks):
        text = lock.read_text("utf-8")
        halves = (trusted, "trusted", lockfile.without(text, packages)), (rest, "rest", lockfile.only(text, packages))
        for paths, word, half in halves:
            if lockfile.names(half):
                path = folder / f"{number}-{word}.lock"
                path.write_text(half, "utf-8")
                paths.append(path)
    return trusted, rest


def _mark(request: Request, uv: Uv, venv: Path) -> Marker:
    plan, site = request.plan, site_packages_path(venv)
    probed = probe(python_path(venv), plan.spec, clean_env(request.settings), keep=uv.keep)
    older = (read_marker(each) for each in env_folders(request.settings.venvs_dir, plan.spec.name))
    marker = Marker(
        name=plan.spec.name,
        key=plan.key,
        fingerprint=fingerprint(plan.key, probed.interpreter),
        serial=1 + max((each.serial for each in older if each), default=0),
        flavour=plan.flavour,
        extras=plan.extras,
        request=plan.request,
        interpreter=f"{probed.interpreter.implementation}-{probed.interpreter.version}-{probed.interpreter.libc}",
        uv=uv.version(),
        built=int(time.time()),
        python=python_path(venv).relative_to(venv).as_posix(),
        site_packages=site.relative_to(venv).as_posix(),
        versions=probed.versions,
        records=records_of(venv, site),
    )
    write_marker(venv, marker)
    return marker


def _publish(venv: Path, root: Path, marker: Marker) -> Path:
    """Give it the first free name: what lies at a taken one is damaged, or somebody still works in it."""
    generation = 1
    while not rename(venv, target := root / folder_name(marker.name, marker.fingerprint, generation)):
        generation += 1
    return target


def _refuse_untrusted(request: Request, packages: frozenset[str]) -> None:
    if packages and request.offline and request.settings.wheelhouse is None:
        plan = request.plan
        message = (
            f"{plan.spec.name} is damaged in {', '.join(sorted(packages))}, uv's cache may share the damage, and the"
            " network is off"
        )
        raise EnvDamagedError(message, hint=bring(", ".join(sorted(packages)), plan.locks[0]))
