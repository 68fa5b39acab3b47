"""Weights: files with a digest, a licence and places to get them from; and the model that they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upx.specs.backends import ParameterValue


@dataclass(frozen=True, slots=True)
class Licence:
    """The terms of a file: ``name`` is an SPDX identifier, or what the licence calls itself; ``link`` its text.

    ``noncommercial``, ``gated`` (the publisher wants to be asked for access) and ``ask`` (share-alike, attribution:
    a user should know) are shown and accepted before first use. ``note``: where the name comes from, if not from the
    file's own page.
    """

    name: str
    link: str = ""
    noncommercial: bool = False
    gated: bool = False
    ask: bool = False
    note: str = ""

    @property
    def restricted(self) -> bool:
        """Whether it has to be accepted before first use."""
        return self.noncommercial or self.gated or self.ask


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file inside a package of the backend's own environment, found without importing the package."""

    kind: ClassVar[str] = "package"
    package: str
    path: str


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a repository of the Hugging Face hub; ``revision`` is a branch, a tag or a commit."""

    kind: ClassVar[str] = "hf"
    repository: str
    path: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file behind a plain address, http or https."""

    kind: ClassVar[str] = "url"
    url: str


@dataclass(frozen=True, slots=True)
class DriveSource:
    """A file shared on Google Drive, by its id."""

    kind: ClassVar[str] = "gdrive"
    id: str


@dataclass(frozen=True, slots=True)
class OneDriveSource:
    """A file shared on OneDrive, by its share link."""

    kind: ClassVar[str] = "onedrive"
    link: str


@dataclass(frozen=True, slots=True)
class ManualSource:
    """A file that only a person can get: ``where`` it is, and what to do there. It is imported afterwards."""

    kind: ClassVar[str] = "manual"
    where: str
    note: str = ""


Source: TypeAlias = PackageSource | HubSource | UrlSource | DriveSource | OneDriveSource | ManualSource


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of a model. ``role`` is what a backend finds it by, ``file`` its name, which may begin with folders.

    ``sha256`` in lower-case hex, empty where none is known, and then ``unverified`` says why. ``size`` in bytes,
    exact; 0 where it is not known, and then ``about`` may say what to expect. ``sources`` are tried in order.
    ``licence``: None for the model's. ``layout``: the file in the backend's folder that lists its tensors.
    """

    role: str
    file: str
    sources: tuple[Source, ...]
    sha256: str = ""
    size: int = 0
    about: int = 0
    unverified: str = ""
    licence: Licence | None = None
    layout: str = ""

    @property
    def expected_size(self) -> int:
        """Bytes to make room for; 0 where nobody knows."""
        return self.size or self.about


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A trained instance: its name is unique in the world.

    ``kind``: how it was trained, in the field's words. ``bundles``: the sets that it is pulled with. ``aliases``: names
    of the family that it is a member of; the scale tells the members apart. ``align``: what its tiles start at
    multiples of; 0: as its backend says.
    """

    name: str
    scale: int
    assets: tuple[Asset, ...] = ()
    aliases: tuple[str, ...] = ()
    title: str = ""
    align: int = 0
    kind: str = "regression"
    licence: Licence = field(default_factory=lambda: Licence(""))
    bundles: tuple[str, ...] = ()
    # Extra values for this model's load, from the manifest, passed to the backend as they are.
    options: Mapping[str, ParameterValue] = field(default_factory=dict[str, "ParameterValue"])

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Its own licence and those of its files, each once."""
        own = (self.licence,) if self.licence.name else ()
        return tuple(dict.fromkeys((*own, *(asset.licence for asset in self.assets if asset.licence))))

    @property
    def licence_names(self) -> str:
        """Their names in one line, in SPDX's way; empty where none is known."""
        return " AND ".join(licence.name for licence in self.licences)

    @property
    def restricted(self) -> bool:
        """Whether a licence has to be accepted before first use."""
        return any(licence.restricted for licence in self.licences)
