"""The store of weights: files by their digest, models as links to them, a receipt for each.

    weights/blobs/<sha256>            the bytes, read-only, each once whoever uses them
    weights/models/<model>/<file>     a link to one of them, under the name that the backend knows
    weights/receipts/<model>/<role>.json
    weights/parts/                    what is being fetched, and in made-* what is being made
    weights/uses/<model>              its lock: shared by who uses the model; its time: when that was last
    weights/.lock                     shared while something is put in, exclusive while something is taken out

A file is made beside and renamed, then linked, then its receipt is written: who finds a receipt finds all of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upx.assets.disk import copy_hashed, link_or_copy, need, scratch, store_errors, sweep_scratch, wait_for
from upx.assets.receipts import SHA256, Receipt, named_digests, read_receipt
from upx.errors import WeightsError
from upx.locks import HeldLock, is_locked, try_lock

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the store. ``trouble``: what is wrong with how it lies there, empty where nothing is."""

    receipt: Receipt
    path: Path
    trouble: str = ""


class Store:
    """The store in one folder; any number of processes may have one of these at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parts = root / "parts"

    # Looking

    def models(self) -> list[str]:
        """The names of all models that have a file here."""
        folder = self.root / "receipts"
        return sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []

    def receipts(self, model: str) -> list[Receipt]:
        """What is here of one model."""
        found = (read_receipt(path) for path in sorted((self.root / "receipts" / model).glob("*.json")))
        return [each for each in found if each is not None and each.model == model]

    def find(self, model: str, role: str) -> Kept | None:
        """The file of one role; None where there is no receipt for it. Its bytes are not looked at."""
        receipt = read_receipt(self._receipt(model, role))
        if receipt is None or (receipt.model, receipt.role) != (model, role):
            return None
        path = self.root / "models" / model / receipt.file
        return Kept(receipt, path, self._trouble(path, receipt.sha256))

    def blob(self, sha256: str) -> Path:
        """Where the bytes of that digest lie, if they are here."""
        return self.root / "blobs" / sha256

    def blobs(self) -> dict[str, int]:
        """Digest to size of everything that is kept."""
        folder = self.root / "blobs"
        names = [each for each in folder.iterdir() if SHA256.fullmatch(each.name)] if folder.is_dir() else []
        return {each.name: each.lstat().st_size for each in names if each.is_symlink() or each.is_file()}

    def folder(self, model: str) -> Path:
        """The folder of a model's links."""
        return self.root / "models" / model

    def _trouble(self, path: Path, sha256: str) -> str:
        blob = self.blob(sha256)
        try:
            if blob.is_symlink() or not blob.is_file():
                return "is no file of the store" if os.path.lexists(blob) else "is missing from the store"
            if path.is_symlink() or not path.exists():
                inside = Path(os.path.realpath(self.root), "blobs", sha256)
                return "" if (there := Path(os.path.realpath(path))) == inside else _astray(path, there, inside)
            # Where links need a privilege, a model's file is the same file by another name, or a copy.
            return "" if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)) else "lies elsewhere"
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    # Putting in

    def put(self, made: Path, receipt: Receipt) -> Path:
        """Take the file ``made`` (on the same file system, its digest is the receipt's) and give its new path.

        StoreFullError or WeightsError where it cannot be kept; ``made`` is gone afterwards.
        """
        with self.errors(), self._locked(shared=True):
            self._take(made, receipt.sha256)
            return self._register(receipt)

    def link(self, receipt: Receipt) -> bool:
        """Give bytes that are here already to a model as well; False where they have gone meanwhile."""
        with self.errors(), self._locked(shared=True):
            here = self.blob(receipt.sha256).is_file()
            if here:
                self._register(receipt)
            return here

    @contextmanager
    def making(self) -> Generator[Path]:
        """A name in the store for a file that is being made; what is left of it afterwards is removed."""
        with self.scratch() as folder:
            yield folder / "made"

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder in the store for what is being made, gone at the end; a killed maker's goes with a sweep."""
        return scratch(self.root, self.parts)

    def copy_in(self, source: Path, receipt: Receipt) -> Path:
        """Keep a copy of ``source``; WeightsError where its bytes are not, or no longer, the receipt's."""
        self.need(receipt.size)
        with self.making() as made:
            if copy_hashed(source, made) != receipt.sha256:
                raise WeightsError(f"{source.name} changed while it was read", hint="run it again when it is whole")
            return self.put(made, receipt)

    def drop(self, model: str, role: str) -> None:
        """Take one role away from a model."""
        receipt = self._receipt(model, role)
        with self.errors(), self._locked(shared=False):
            found = read_receipt(receipt)
            receipt.unlink(missing_ok=True)
            if found is not None:
                (self.folder(model) / found.file).unlink(missing_ok=True)

    def need(self, size: int) -> None:
        """StoreFullError unless ``size`` more bytes fit."""
        need(self.root, size)

    def errors(self) -> AbstractContextManager[None]:
        """The file system's failures, in the form that all have."""
        return store_errors(self.root)

    def _take(self, made: Path, sha256: str) -> None:
        blob = self.blob(sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        made.chmod(0o444)
        if blob.is_dir() and not blob.is_symlink():
            shutil.rmtree(blob)
        # Always the new bytes: what lies there under this name may be what is to be mended.
        made.replace(blob)

    def _register(self, receipt: Receipt) -> Path:
        path = self.folder(receipt.model) / receipt.file
        old = self.folder(receipt.model)
        if old.is_symlink():
            old.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._link(path, receipt.sha256)
        receipt.write(self._receipt(receipt.model, receipt.role))
        self.touch(receipt.model)
        return path

    def _link(self, path: Path, sha256: str) -> None:
        blob = self.blob(sha256)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            beside.symlink_to(os.path.relpath(blob, path.parent))
        except OSError:
            link_or_copy(blob, beside)
        try:
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    # Using

    def use(self, model: str) -> HeldLock | None:
        """Keep the model's files until the lock is closed; None where nothing of it is here, or nothing can be removed.

        A store that this user cannot write to (a shared one, a read-only image) is used without a lock.
        """
        if not (self.root / "receipts" / model).is_dir():
            return None
        self.touch(model)
        try:
            return wait_for(self._use(model), shared=True)
        except OSError:
            return None

    def touch(self, model: str) -> None:
        """The model is used now. A store that cannot be written to remembers nothing."""
        path = self._use(model)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def last_used(self, model: str) -> float:
        """Seconds since the epoch; 0 where nobody knows."""
        try:
            return self._use(model).stat().st_mtime
        except OSError:
            return 0.0

    def in_use(self, model: str) -> bool:
        """Whether a process of ours uses it right now."""
        try:
            return is_locked(self._use(model))
        except OSError:
            return True

    # Taking out

    def sweep_parts(self, older_than_s: float) -> int:
        """Remove unfinished downloads that nobody has touched for so long; how many bytes that were."""
        from upx.assets.fetch import sweep_parts

        with self.errors():
            before = self.parts_size()
            # First: to the other a scratch folder's lock is that of a part which is not there.
            sweep_scratch(self.parts)
            sweep_parts(self.parts, older_than_s)
            return before - self.parts_size()

    def parts_size(self) -> int:
        """Bytes of unfinished downloads, and of what is being made."""
        return sum(path.lstat().st_size for path in self.parts.rglob("*") if path.is_file())

    def forget(self, model: str) -> bool:
        """Remove a model's links and receipts; False while somebody uses it. Bytes go with ``sweep``."""
        with self.errors(), self._locked(shared=False):
            lock = try_lock(self._use(model))
            if lock is None:
                return False
            with lock:
                for folder in (self.folder(model), self.root / "receipts" / model):
                    if folder.is_symlink():
                        folder.unlink()
                    elif folder.exists():
                        shutil.rmtree(folder)
                lock.discard()
            return True

    def sweep(self) -> int:
        """Remove the bytes that no receipt names; how many bytes that were.

        A receipt that this version cannot use, or this user not read, names its bytes all the same: WeightsError
        where it cannot be told which, and then nothing is removed.
        """
        with self.errors(), self._locked(shared=False):
            wanted = {digest for path in self.root.glob("receipts/*/*.json") for digest in named_digests(path)}
            unwanted = {sha256: size for sha256, size in self.blobs().items() if sha256 not in wanted}
            for sha256 in unwanted:
                self.blob(sha256).unlink(missing_ok=True)
            return sum(unwanted.values())

    def _receipt(self, model: str, role: str) -> Path:
        return self.root / "receipts" / model / f"{role}.json"

    def _use(self, model: str) -> Path:
        return self.root / "uses" / model

    @contextmanager
    def _locked(self, *, shared: bool) -> Generator[None]:
        with wait_for(self.root / ".lock", shared=shared):
            yield


def _astray(path: Path, there: Path, inside: Path) -> str:
    """Why a link does not lead where its receipt says."""
    if not path.exists():
        return "has lost its link"
    return "is linked to another version" if there.parent == inside.parent else "is a link that leads out of the store"
