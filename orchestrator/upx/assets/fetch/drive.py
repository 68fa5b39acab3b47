"""Google Drive's page instead of a file: a question to be confirmed, a quota that is spent, or a login."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from upx.assets.fetch.address import AddressError, follow, parse
from upx.assets.fetch.failures import IMPORT_HINT, FailedError

if TYPE_CHECKING:
    from upx.assets.fetch.address import Address
    from upx.assets.fetch.failures import WebPageError

# Drive's pages are a tenth of that.
PAGE_BYTES = 256 * 1024


def confirmed(page: WebPageError) -> Address:
    """The address behind Drive's page, which ``gdown`` reads where it is installed; FailedError says what it is."""
    text = page.page.lower()
    if "quota exceeded" in text or "too many users" in text:
        why = "Google Drive gives the file to nobody for now: too many have fetched it"
        raise FailedError(why, hint=f"try again in a day; or {IMPORT_HINT}", kind="content") from page
    if "accounts.google.com" in text or "servicelogin" in text:
        hint = f"the file is not shared with everybody; {IMPORT_HINT}"
        raise FailedError("Google Drive wants a login", hint=hint, kind="access") from page
    if importlib.util.find_spec("gdown") is None:
        hint = f"`pip install gdown` beside upx can answer it; or {IMPORT_HINT}"
        raise FailedError("Google Drive asks a question on a web page", hint=hint, kind="content") from page
    return _by_gdown(page)


def _by_gdown(page: WebPageError) -> Address:
    """Only the page is read by gdown: the bytes stay with us, who can resume, hash and cancel them."""
    try:
        gdown: Any = importlib.import_module("gdown.download")
        return follow(parse(page.address), gdown.get_url_from_gdrive_confirmation(page.page))
    except AddressError as error:
        raise FailedError(f"Google Drive's page leads nowhere: {error}", hint=IMPORT_HINT, kind="content") from error
    except Exception as error:  # whatever a page of another day makes of it
        why = "Google Drive sends a web page that holds no address"
        raise FailedError(why, hint=IMPORT_HINT, kind="content") from error
