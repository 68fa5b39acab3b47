"""Where a source's bytes are: one address for each kind of source."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from upx.assets.fetch.address import Address, AddressError, parse
from upx.assets.fetch.failures import FailedError
from upx.specs import DriveSource, HubSource, OneDriveSource, UrlSource

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from upx.assets.fetch.network import Network
    from upx.specs import Source

FETCHED = (HubSource, UrlSource, DriveSource, OneDriveSource)


@dataclass(frozen=True, slots=True)
class Place:
    """An address, and what is known of the file there: 0 and empty where nothing is.

    ``shown`` names it to people. ``secret``: headers for its origin alone. ``access_hint``: what to do when it
    refuses. ``confirmed``: it was read from a page, and a second page is the end.
    """

    address: Address
    shown: str
    secret: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    sha256: str = ""
    size: int = 0
    revision: str = ""
    access_hint: str = ""
    confirmed: bool = False


def fetched(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Those that need neither a person nor an environment."""
    return tuple(source for source in sources if isinstance(source, FETCHED))


def place_of(source: Source, network: Network, cancel: threading.Event) -> Place:
    """Where ``source`` is; the hub is asked. FailedError when it cannot be told, DropError to try again."""
    if isinstance(source, HubSource):
        from upx.assets.fetch.hub import hub_place

        return hub_place(source, network, cancel)
    if isinstance(source, UrlSource):
        return _plain(source.url)
    if isinstance(source, DriveSource):
        query = f"id={quote(source.id, safe='')}&export=download&confirm=t"
        return _plain(f"{network.drive_base}/download?{query}")
    if isinstance(source, OneDriveSource):
        share = base64.urlsafe_b64encode(source.link.encode()).decode().rstrip("=")
        return _plain(f"{network.onedrive_base}/shares/u!{share}/driveItem/content")
    raise FailedError(f"nothing to fetch from a source of kind {source.kind}")


def _plain(text: str) -> Place:
    try:
        address = parse(text)
    except AddressError as error:
        raise FailedError(str(error), hint="the manifest's address has to be mended") from error
    return Place(address, address.shown)


def label(source: Source) -> str:
    """What names a source in a message, when no more than the manifest is known."""
    if isinstance(source, HubSource):
        return f"{source.repository}/{source.path}"
    if isinstance(source, UrlSource):
        try:
            return parse(source.url).place
        except AddressError:
            return "an address"
    return {"gdrive": "Google Drive", "onedrive": "OneDrive"}.get(source.kind, source.kind)


def expects_page(source: Source, name: str) -> bool:
    """Whether the file itself is a page, which otherwise comes only instead of a file."""
    path = source.path if isinstance(source, HubSource) else name
    if isinstance(source, UrlSource):
        path = source.url.partition("?")[0].partition("#")[0]
    return path.lower().endswith((".html", ".htm", ".xhtml"))
