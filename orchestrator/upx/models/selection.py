"""Which models are meant: by name, alias, backend, bundle, or a manifest."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upx.errors import ManifestError, UnknownBackendError
from upx.manifest.build import build_asset
from upx.models.shelf import Member
from upx.routes import DEFAULT_BACKEND, Request, choose

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from upx.models.shelf import Shelf
    from upx.specs import Asset, BackendSpec

BUNDLE_ALL = "all"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a command is about. ``envs``: backends whose environments are wanted too; ``pins``: never to be evicted."""

    members: tuple[Member, ...]
    envs: tuple[BackendSpec, ...] = ()
    pins: frozenset[str] = frozenset()


def by_names(shelf: Shelf, names: Iterable[str]) -> list[Member]:
    """A model by its name; every model of a backend or alias. UnknownBackendError names the nearest."""
    members = shelf.members()
    found: list[Member] = []
    for name in names:
        own = [each for each in members if name == each.model.name or name in each.model.aliases]
        family = [each for each in members if name == each.backend.name or name in each.backend.aliases]
        if not own and not family:
            # The routes know what was meant, and a manifest that cannot be used says so.
            broken = [shelf.catalog.backend(each) for each in shelf.catalog.broken() if each == name]
            route = choose(Request(backend=name), [each.backend for each in members])
            own = [Member(route.backend, route.model)] if not broken else []
        found += own or family
    return _once(found)


def bundles(shelf: Shelf) -> dict[str, list[Member]]:
    """Every bundle: those that manifests name, each backend as one, and all."""
    default = shelf.settings.backend or DEFAULT_BACKEND
    made: dict[str, list[Member]] = {"default": _default(shelf, default)}
    for member in shelf.members():
        for name in (*member.model.bundles, member.backend.name, BUNDLE_ALL):
            if name != "default":
                made.setdefault(name, []).append(member)
    return made


def by_bundles(shelf: Shelf, names: Iterable[str]) -> list[Member]:
    """The members of bundles; UnknownBackendError names those that there are."""
    known = bundles(shelf)
    found: list[Member] = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UnknownBackendError(
                f"no bundle is called {name!r}", hint=f"{hint}there are: {', '.join(sorted(known))}"
            )
        found += known[name]
    return _once(found)


def by_manifest(shelf: Shelf, path: Path) -> Selection:
    """What a manifest names, its own files in the models' places; ManifestError for what no backend knows."""
    from upx.manifest.pulling import parse_wanted

    table = parse_wanted(path)
    try:
        members = by_names(shelf, table["models"]) + by_bundles(shelf, table["bundles"])
        envs = [_env(shelf, name) for name in table["envs"]]
        own = [_owner(shelf, asset) for asset in table["assets"]]
    except UnknownBackendError as error:
        raise ManifestError(f"{path}: {error}", hint=error.hint) from error
    chosen = {each.model.name: each for each in _once([*members, *own])}
    for asset in table["assets"]:
        member = chosen[asset["model"]]
        made = build_asset({key: value for key, value in asset.items() if key != "model"})
        chosen[asset["model"]] = _with_asset(member, made, path)
    return Selection(tuple(chosen.values()), tuple(envs), frozenset(chosen if table["pin"] else ()))


def _default(shelf: Shelf, name: str) -> list[Member]:
    route = choose(Request(), shelf.catalog.backends(), default=name)
    return [Member(route.backend, route.model)]


def _owner(shelf: Shelf, asset: dict[str, Any]) -> Member:
    for member in shelf.members():
        if member.model.name == asset["model"]:
            return member
    raise UnknownBackendError(
        f"no model is called {asset['model']!r}", hint="upx models list names them; a backend's folder brings others"
    )


def _env(shelf: Shelf, name: str) -> BackendSpec:
    spec = shelf.catalog.backend(name)
    if spec.kind == "weights":
        raise UnknownBackendError(
            f"{name} has no environment in this version", hint="upx backends lists those that have"
        )
    return spec


def _with_asset(member: Member, extra: Asset, path: Path) -> Member:
    """The member with the manifest's word on one of its files: other sources first, a digest where none was known."""
    old = next((each for each in member.model.assets if each.role == extra.role), None)
    if old is None:
        roles = ", ".join(each.role for each in member.model.assets) or "no files"
        raise ManifestError(f"{path}: {member.model.name} has no role {extra.role!r}", hint=f"it has {roles}")
    if old.sha256 and extra.sha256 and old.sha256 != extra.sha256:
        raise ManifestError(
            f"{path}: sha256 of {member.model.name}:{old.role} differs from the one that its backend knows",
            hint="bring another file with upx models import, which needs no digest",
        )
    known = extra if extra.sha256 and not old.sha256 else old
    new = dataclasses.replace(
        old,
        sources=tuple(dict.fromkeys((*extra.sources, *old.sources))),
        sha256=known.sha256,
        size=known.size,
        about=known.about or old.about,
        unverified=known.unverified,
        licence=old.licence or extra.licence,
    )
    assets = tuple(new if each is old else each for each in member.model.assets)
    return Member(member.backend, dataclasses.replace(member.model, assets=assets))


def _once(members: Sequence[Member]) -> list[Member]:
    return list({each.model.name: each for each in members}.values())
