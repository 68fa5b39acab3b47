"""A file that another machine sends: into the part that a fetch would fill too, and into the store once it is verified.

The digest that the manifest states decides, and nothing that the sender says. What came is kept by ``close``, and
continued by the same sender, or by a fetch, after whatever broke it off.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from upx.assets.fetch.part import Part
from upx.assets.find import PICKLES
from upx.errors import UnusableWeightsError, WeightsError
from upx.locks import try_lock

if TYPE_CHECKING:
    from upx.assets.obtain import Need, Obtainer
    from upx.assets.store import Store
    from upx.locks import HeldLock
    from upx.specs import Asset

SENDER = "sender"
# Sizes that were read off a page are rounded.
_SLACK = 1 << 20


def unsendable(asset: Asset) -> str:
    """Why a file is not taken from another machine; empty for one that can be told from every other."""
    if asset.file.endswith(PICKLES):
        return f"{asset.file} is a pickle, and no copy of one is vouched for"
    if not asset.sha256:
        return f"nobody has published the sha256 of {asset.file}"
    return "" if asset.expected_size else f"the size of {asset.file} is not known"


def fits(asset: Asset, size: int) -> bool:
    """Whether a file may have that many bytes."""
    return size == asset.size if asset.size else 0 < size <= asset.about + asset.about // 8 + _SLACK


class Incoming:
    """One file of ``size`` bytes on its way. For one thread; everything raises WeightsError and its subclasses."""

    def __init__(self, need: Need, store: Store, obtainer: Obtainer, *, size: int, sender: str) -> None:
        self._need, self._store, self._obtainer = need, store, obtainer
        self._size, self._sender = size, sender
        self._lock: HeldLock | None = None
        self._part: Part | None = None
        self.resumed = 0

    def begin(self) -> int | None:
        """How many of its bytes are here, all of them where it is in the store; None while somebody else brings it."""
        if not fits(self._need.asset, self._size):
            raise UnusableWeightsError(f"{self._need.name} does not have {self._size} bytes", hint="update upx there")
        if self._obtainer.present(self._need):
            return self._size
        with self._store.errors():
            self._lock = try_lock(self._store.parts / f"{self._need.asset.sha256}.lock")
        if self._lock is None:
            return None
        try:
            return self._open(self._lock)
        except BaseException:
            self.close()
            raise

    def _open(self, lock: HeldLock) -> int:
        # Where locks are not enforced another may be at the same file: each takes its own, and nothing is resumed.
        key = self._need.asset.sha256 if lock.enforced else f"{self._need.asset.sha256}-{secrets.token_hex(6)}"
        part = self._part = Part(self._store.parts, key, self._need.name).__enter__()
        # One who sends nonsense is not to spoil what another sends.
        if str(part.note.get(SENDER, self._sender)) != self._sender:
            part.restart()
        part.load(threading.Event(), lambda _: None)
        if part.size >= self._size and part.sha256 != self._need.asset.sha256:
            part.restart()  # whole, and wrong: an earlier run's
        if part.size < self._size:
            part.require_space(self._size)
            part.remember(**{SENDER: self._sender})
        self.resumed = part.size
        return self._taken(part)

    def append(self, data: bytes | memoryview) -> int:
        """Write more of it; how many bytes are here now. At the end it is verified, and in the store."""
        if (part := self._part) is None:
            raise WeightsError(f"{self._need.name} is not being taken", hint="offer it first")
        if part.size + len(data) > self._size:
            raise UnusableWeightsError(f"{self._need.name} is longer than {self._size} bytes", hint="send it anew")
        part.append(data)
        if part.size < self._size:
            part.keep_space(self._size)
        return self._taken(part)

    def _taken(self, part: Part) -> int:
        if part.size < self._size:
            return part.size
        if part.sha256 != self._need.asset.sha256:
            part.discard()
            raise UnusableWeightsError(
                f"{self._need.name}: the bytes are wrong, its sha256 differs", hint="send it anew"
            )
        part.close()  # a file that is open cannot be renamed on Windows
        self._obtainer.take_sent(self._need, part.path, self._size, sender=self._sender)
        part.discard()
        self.close()
        return self._size

    @property
    def over(self) -> bool:
        """Whether nothing more of it is taken."""
        return self._part is None

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        part, self._part = self._part, None
        lock, self._lock = self._lock, None
        if part is not None:
            part.close()
        if lock is not None:
            with lock:
                if not lock.path.with_suffix(".part").exists():
                    lock.discard()

    def so_far(self) -> int:
        """How many bytes whoever brings it has brought."""
        try:
            return (self._store.parts / f"{self._need.asset.sha256}.part").stat().st_size
        except OSError:
            return 0
