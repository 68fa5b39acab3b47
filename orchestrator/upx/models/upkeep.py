"""Upkeep of the store: how much lies there, what is pinned, what goes when a cap is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.assets.disk import wait_for
from upx.notes import read_note, write_note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from upx.models.shelf import Shelf

# An unfinished download that nobody came back to.
OLD_PART_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one model takes: ``size`` bytes of all its files, ``own`` of those that no other model shares."""

    model: str
    size: int
    own: int
    last_used: float
    pinned: bool
    in_use: bool


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed, and why other models stayed. ``freed`` in bytes."""

    evicted: tuple[str, ...]
    freed: int
    kept: tuple[str, ...] = ()


def usage(shelf: Shelf) -> list[Usage]:
    """Every model of the store, the least recently used first."""
    store, running, pins = shelf.store, shelf.running(), pinned(shelf)
    digests = {model: {each.sha256 for each in store.receipts(model)} for model in store.models()}
    sizes = store.blobs()
    rows = [
        Usage(
            model,
            _sum(sizes, held),
            _sum(sizes, held.difference(*(other for name, other in digests.items() if name != model))),
            store.last_used(model),
            model in pins,
            model in running or store.in_use(model),
        )
        for model, held in digests.items()
    ]
    return sorted(rows, key=lambda row: (row.last_used, row.model))


def pinned(shelf: Shelf) -> set[str]:
    """The models that are never evicted."""
    return {name for name, value in read_note(shelf.store.root / "pins.json").items() if value is True}


def set_pin(shelf: Shelf, model: str, *, pinned: bool) -> None:
    """Pin a model, or let it go; WeightsError where that cannot be written down."""
    path = shelf.store.root / "pins.json"
    with shelf.store.errors(), wait_for(path.with_name(".pins.lock"), shared=False):
        note = {name: True for name, value in read_note(path).items() if value is True and name != model}
        write_note(path, {**note, model: True} if pinned else note)


def remove(shelf: Shelf, models: Sequence[str]) -> Collected:
    """Remove models, pinned ones too, but none that is in use; bytes that others share stay."""
    running = shelf.running()
    gone = [model for model in models if model not in running and shelf.store.forget(model)]
    for model in gone:
        set_pin(shelf, model, pinned=False)
    return Collected(tuple(gone), shelf.store.sweep(), tuple(model for model in models if model not in gone))


def collect(shelf: Shelf, cap: int | None) -> Collected:
    """Remove what no model names, old unfinished downloads, and above ``cap`` bytes the least recently used models."""
    freed = shelf.store.sweep() + shelf.store.sweep_parts(OLD_PART_S)
    if cap is None:
        return Collected((), freed)
    evicted = make_room(shelf, cap)
    return Collected(evicted.evicted, freed + evicted.freed, evicted.kept)


def make_room(shelf: Shelf, cap: int, *, keep: Collection[str] = ()) -> Collected:
    """Evict the least recently used models until the store takes at most ``cap`` bytes; never one in use or pinned."""
    evicted: list[str] = []
    kept: list[str] = []
    freed = shelf.store.sweep() if sum(shelf.store.blobs().values()) > cap else 0
    rows = usage(shelf)
    staying = {row.model for row in rows if row.pinned or row.in_use or row.model in keep}
    bytes_of = {row.model: {each.sha256 for each in shelf.store.receipts(row.model)} for row in rows}
    held = {sha256 for model in staying for sha256 in bytes_of[model]}
    for row in rows:
        if sum(shelf.store.blobs().values()) <= cap:
            break
        # To evict one all of whose bytes stay with others would free nothing.
        if row.model in staying or bytes_of[row.model] <= held or not shelf.store.forget(row.model):
            kept.append(row.model)
            continue
        evicted.append(row.model)
        freed += shelf.store.sweep()
    return Collected(tuple(evicted), freed, tuple(kept))


def _sum(sizes: Mapping[str, int], digests: Collection[str]) -> int:
    return sum(sizes.get(sha256, 0) for sha256 in digests)
