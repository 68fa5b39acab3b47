"""Verify: every byte of models and, for a manifest, every file of environments, against what they have to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from upx.assets.find import CONFIG, CONFIG_ROLE, Found
from upx.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upx.assets.find import Finder
    from upx.models.shelf import Member, Shelf
    from upx.specs import Asset, BackendSpec


@dataclass(frozen=True, slots=True)
class Checked:
    """One file, or one environment, whose ``file`` is empty.

    ``status``: ok, unverified (nobody has published a digest: the bytes are those that came), missing or damaged;
    ``hint`` is the next step of the last two.
    """

    name: str
    file: str
    status: Literal["ok", "unverified", "missing", "damaged"]
    message: str
    hint: str = ""


def verify(shelf: Shelf, members: Iterable[Member]) -> Iterator[Checked]:
    """Read every file of ``members``, wherever it was found."""
    for member in members:
        finder = shelf.finder(member.backend, fresh=True)
        for asset in member.model.assets:
            yield _check(finder, member, asset)
        yield from _check_config(finder, member)


def verify_envs(shelf: Shelf, specs: Iterable[BackendSpec]) -> Iterator[Checked]:
    """Read every file of environments."""
    for spec in specs:
        venv = shelf.envs.find(spec.env)
        if venv is None:
            yield Checked(spec.name, "", "missing", "its environment is not built", f"upx setup {spec.name}")
            continue
        damage = shelf.envs.check(venv, hashes=True)
        if damage:
            words = f"{len(damage)} files of its environment are damaged, the first: {damage[0].path}"
            yield Checked(spec.name, "", "damaged", words, f"upx setup {spec.name} --repair")
        else:
            yield Checked(spec.name, "", "ok", f"environment {venv.folder}, every file as installed")


def verify_orphans(shelf: Shelf) -> Iterator[Checked]:
    """Read every file of models that no backend names any more."""
    known = {member.model.name for member in shelf.members()}
    for name in shelf.store.models():
        for receipt in () if name in known else shelf.store.receipts(name):
            kept = shelf.store.find(name, receipt.role)
            trouble = "" if kept is None else kept.trouble or shelf.difference(kept, fresh=True)
            hint = f"no backend knows it; upx models rm {name} removes it"
            status: Literal["ok", "damaged"] = "damaged" if trouble else "ok"
            yield Checked(name, receipt.file, status, trouble or "as it came", hint)


def installed(shelf: Shelf) -> list[Member]:
    """Every model that has a file in the store, or all of them in an environment that is built."""
    kept = set(shelf.store.models())
    return [each for each in shelf.members() if each.model.assets and (each.model.name in kept or is_here(shelf, each))]


def is_here(shelf: Shelf, member: Member) -> bool:
    """Whether all files of a model are found and right, by their stamps where they have one."""
    finder = shelf.finder(member.backend)
    try:
        return all(isinstance(found, Found) for found in finder.find_all(member.model))
    except WeightsError:
        return False


def _check(finder: Finder, member: Member, asset: Asset) -> Checked:
    name = member.model.name
    try:
        found = finder.find(member.model, asset)
    except WeightsError as error:
        return Checked(name, asset.file, "damaged", str(error).partition(": ")[2] or str(error), error.hint)
    if not isinstance(found, Found):
        return Checked(name, asset.file, "missing", "; ".join(found.tried), f"upx models pull {name}")
    if found.place == "explicit" and asset.sha256 and found.sha256 != asset.sha256:
        return Checked(name, asset.file, "unverified", f"{found.why}: {found.path}; it is not the released file")
    if asset.sha256 or found.place == "store":
        kept = finder.store.find(name, asset.role) if found.place == "store" else None
        if kept is None or kept.receipt.verified:
            return Checked(name, asset.file, "ok", f"{found.why}: {found.path}")
    return Checked(name, asset.file, "unverified", f"{found.why}: {found.path}; {asset.unverified}")


def _check_config(finder: Finder, member: Member) -> Iterator[Checked]:
    """A configuration that came with an import, and overrides the released one."""
    name = member.model.name
    if finder.store.find(name, CONFIG_ROLE) is None or CONFIG_ROLE in {each.role for each in member.model.assets}:
        return
    try:
        found = finder.kept(member.model, CONFIG_ROLE)
    except WeightsError as error:
        yield Checked(name, CONFIG, "damaged", str(error).partition(": ")[2], error.hint)
    else:
        yield Checked(name, CONFIG, "ok", f"{found.why}: {found.path}" if found else "removed meanwhile")
