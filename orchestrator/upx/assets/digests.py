"""What a file's bytes are: its SHA-256, and a stamp that saves reading gigabytes again while the file is untouched.

A stamp remembers a digest together with size, both times, inode and device of the file, and with the boot of the
machine. Writing to a file changes its ctime, which no program can set; so a stamp that still fits means the same
bytes, as far as this boot goes: what a power cut lost in between is read anew after it. It costs one stat and one
small read, against 0.5 s for each GB that is hashed. Two more rules keep it honest: a file that was touched less
than TOUCHED_S before it was read gets no stamp, since a clock may be too coarse to tell the next change from that
one, and where boots have no name nothing is stamped. Bits that rot on the disk change no time: ``upx models
verify`` reads every byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from typing import TYPE_CHECKING

from upx.notes import read_note, write_note
from upx_protocol.entry import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = 1 << 20
# Hashing less than this takes about as long as looking for a stamp.
SMALL = 1 << 20
TOUCHED_S = 2.0


def sha256_of(path: Path, *, on_block: Callable[[int], None] | None = None) -> str:
    """SHA-256 in hex of a file's bytes, read now; ``on_block`` hears how many were read. OSError where it cannot be."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if on_block is not None:
                on_block(count)
    return digest.hexdigest()


class Stamps:
    """Digests of files that were read before, kept in ``folder``, one note for each file.

    ``believe=False`` reads every file whatever its stamp says, and stamps it anew.
    """

    def __init__(self, folder: Path, *, believe: bool = True) -> None:
        self._folder = folder
        self._believe = believe
        self._boot = boot_id()

    def sha256(self, path: Path) -> str:
        """SHA-256 in hex of the file at ``path`` (links are followed): by its stamp, or read now and stamped."""
        before = path.stat()
        if before.st_size < SMALL or not self._boot:
            return sha256_of(path)
        facts = self._facts(before)
        note = self._folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
        kept = read_note(note)
        if self._believe and kept.get("facts") == facts and isinstance(digest := kept.get("sha256"), str):
            return digest
        began = time.time()
        digest = sha256_of(path)
        if self._facts(path.stat()) == facts and began - max(before.st_mtime, before.st_ctime) > TOUCHED_S:
            with contextlib.suppress(OSError):  # without a stamp the next load reads the file again
                write_note(note, {"path": str(path), "facts": facts, "sha256": digest})
        return digest

    def _facts(self, status: os.stat_result) -> list[int | str]:
        times = [status.st_mtime_ns, status.st_ctime_ns]
        return [self._boot, status.st_dev, status.st_ino, status.st_size, *times]
