"""What is asked for, what came of it, and what is said meanwhile."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upx.specs import Source

State: TypeAlias = Literal["waiting", "resolving", "fetching", "retrying", "checking", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Want:
    """One file: ``name`` for people, ``sources`` in the order in which they are tried.

    ``sha256`` in lower-case hex, empty where nobody knows it; ``size`` in bytes, exact, 0 where nobody knows it;
    ``about`` an estimate, for the space check and the progress alone. Sources that need a person, or an environment's
    package, are passed over.
    """

    name: str
    # An address may hold a login.
    sources: tuple[Source, ...] = field(repr=False)
    sha256: str = ""
    size: int = 0
    about: int = 0

    @property
    def key(self) -> str:
        """What names its part: the same for the same bytes, else for the same sources; safe as a file's name."""
        return self.sha256 or "u-" + hashlib.sha256(repr(self.sources).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Got:
    """A whole file at ``path``, which its taker renames away.

    ``address``: where it came from, without login and without what signs it. ``revision``: the hub's commit, if any.
    ``verified_by``: who stated the sha256 that it was compared with; empty when nobody did.
    """

    path: Path
    sha256: str
    size: int
    source: Source = field(repr=False)
    address: str
    revision: str = ""
    verified_by: Literal["manifest", "hub", ""] = ""


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a file is: ``done`` of ``total`` bytes (0: unknown), ``resumed`` of them from an earlier run."""

    key: str
    name: str
    done: int
    total: int
    resumed: int
    state: State
    note: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A want with its caller's part in it: see ``fetch``."""

    want: Want
    present: Callable[[], bool]
    take: Callable[[Got], None]
