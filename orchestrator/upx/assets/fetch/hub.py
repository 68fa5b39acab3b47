"""Files of the Hugging Face hub: through its own library where that is installed, else by the same plain requests."""

from __future__ import annotations

import importlib
import importlib.util
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from upx.assets.fetch.address import Address, AddressError, parse
from upx.assets.fetch.aside import LeftError, aside
from upx.assets.fetch.exchange import Answer, Request, ask
from upx.assets.fetch.failures import IMPORT_HINT, DropError, FailedError, UnreachableError
from upx.assets.fetch.judge import Heard, refuse, retry_after
from upx.assets.fetch.places import Place
from upx.errors import CancelledError

if TYPE_CHECKING:
    import threading

    from upx.assets.fetch.network import Network
    from upx.config import Hub
    from upx.specs import HubSource

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_NO_HEAD = {405, 501}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the hub says about a file; None and empty where it says nothing."""

    etag: str = ""
    size: int | None = None
    commit: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question to the hub, with whatever it needs."""

    source: HubSource
    hub: Hub
    token: str = field(repr=False)
    network: Network
    cancel: threading.Event


def hub_place(source: HubSource, network: Network, cancel: threading.Event) -> Place:
    """The file's address at its present commit, so that a branch that moves on cannot mix two states of it."""
    if network.hub.offline:
        raise FailedError("HF_HUB_OFFLINE is set", hint=f"unset it; or {IMPORT_HINT}", kind="network")
    asked = _Asked(source, network.hub, _token(network.hub), network, cancel)
    facts = _by_library(asked) if importlib.util.find_spec("huggingface_hub") else _by_request(asked)
    revision = facts.commit if _COMMIT.fullmatch(facts.commit) else ""
    address = _address(source, network.hub, revision or source.revision)
    etag = facts.etag.strip('"').lower()
    return Place(
        address,
        address.shown,
        secret=_bearer(asked.token),
        sha256=etag if _SHA256.fullmatch(etag) else "",
        size=facts.size or 0,
        revision=revision,
        access_hint=_access_hint(asked),
    )


def _address(source: HubSource, hub: Hub, revision: str) -> Address:
    path = f"{quote(source.repository)}/resolve/{quote(revision, safe='')}/{quote(source.path)}"
    try:
        return parse(f"{hub.endpoint}/{path}")
    except AddressError as error:
        raise FailedError(f"HF_ENDPOINT: {error}", hint="set HF_ENDPOINT to the hub's address, or unset it") from error


def _token(hub: Hub) -> str:
    """The token, from the settings or its file; empty without one."""
    token = hub.token or ""
    if not token and hub.token_file is not None:
        try:
            token = hub.token_file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""
    token = token.strip()
    if token and not _TOKEN.fullmatch(token):
        raise FailedError("the hub's token holds characters that no token has", hint="set HF_TOKEN anew", kind="access")
    return token


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


# ---------------------------------------------------------------------------------------- plain requests


def _by_request(asked: _Asked) -> _Facts:
    """Ask as the library does: HEAD, following what stays at the hub; the facts are in the last of these answers."""
    address = _address(asked.source, asked.hub, asked.source.revision)
    request = Request(address, method="HEAD", secret=_bearer(asked.token), follow=_stays)
    with ask(request, asked.network, asked.cancel) as answer:
        if answer.status in _NO_HEAD:
            return _Facts()
        if answer.status >= 400:  # noqa: PLR2004
            raise _refusal(asked, answer.status, answer.headers.get("X-Error-Code") or "") or _other(answer)
        return _facts(answer)


def _stays(here: Address, there: Address) -> bool:
    return here.origin == there.origin


def _facts(answer: Answer) -> _Facts:
    headers = answer.headers
    redirected = answer.status >= 300  # noqa: PLR2004
    size = headers.get("X-Linked-Size") or ("" if redirected else headers.get("Content-Length")) or ""
    return _Facts(
        etag=headers.get("X-Linked-ETag") or headers.get("ETag") or "",
        size=int(size) if size.isascii() and size.isdigit() else None,
        commit=headers.get("X-Repo-Commit") or "",
    )


def _other(answer: Answer) -> DropError | FailedError:
    try:
        refuse(Heard(answer.status, answer.headers, None, open_ended=False))
    except (DropError, FailedError) as error:
        return error
    return FailedError(f"answers {answer.status}")


# ---------------------------------------------------------------------------------------- its own library


def _by_library(asked: _Asked) -> _Facts:
    """Ask through ``huggingface_hub``, which knows mirrors, cookies and companies' proxies better than we do."""
    hub: Any = importlib.import_module("huggingface_hub")
    source = asked.source

    def look() -> Any:
        url = hub.hf_hub_url(source.repository, source.path, revision=source.revision, endpoint=asked.hub.endpoint)
        return hub.get_hf_file_metadata(url, token=asked.token or False, timeout=asked.network.timeout)

    try:
        facts = aside(look, seconds=2 * asked.network.timeout, cancel=asked.cancel)
    except CancelledError:
        raise
    except LeftError as error:
        raise DropError("the hub did not answer") from error
    except Exception as error:  # the library's versions raise the errors of two others
        raise _translate(asked, error) from error
    return _Facts(etag=facts.etag or "", size=facts.size, commit=facts.commit_hash or "")


def _translate(asked: _Asked, error: Exception) -> DropError | FailedError:
    """What the library raised, by what it says of the answer, or by its name."""
    name = type(error).__name__
    response: Any = getattr(error, "response", None)
    status: int = getattr(response, "status_code", 0) or 0
    code: str = response.headers.get("X-Error-Code") or "" if response is not None else ""
    refusal = _refusal(asked, status, code or name.removesuffix("Error"))
    if refusal is not None:
        return refusal
    if isinstance(error, ValueError):
        return FailedError(f"{asked.source.repository!r} is no name of the hub", hint="the manifest has to be mended")
    if name in {"OfflineModeIsEnabled", "LocalTokenNotFoundError"}:
        return FailedError(f"the hub's library refuses ({name})", hint=IMPORT_HINT, kind="network")
    if status in {408, 425, 429} or status >= 500:  # noqa: PLR2004
        pause = retry_after(response.headers, now=time.time()) if response is not None else None
        return DropError(f"answers {status}", pause=pause)
    if status:
        return FailedError(f"answers {status}", hint=IMPORT_HINT)
    return _without_answer(asked, error)


def _without_answer(asked: _Asked, error: Exception) -> DropError | FailedError:
    place = _address(asked.source, asked.hub, asked.source.revision).place
    if "Connect" in type(error).__name__:
        return UnreachableError(f"cannot reach {place}: no host, no network, or refused")
    return DropError(f"the hub did not answer ({type(error).__name__})")


# ---------------------------------------------------------------------------------------- what it refuses


def _refusal(asked: _Asked, status: int, code: str) -> FailedError | None:
    """The hub's own reasons; ``code`` is its X-Error-Code, or the library's error by name. None for others."""
    source = asked.source
    if code in {"GatedRepo", "DisabledRepo"}:
        return FailedError("the publisher wants to be asked first", hint=_access_hint(asked), kind="access")
    if code in {"RepoNotFound", "RepositoryNotFound"} or (status == 401 and not code):  # noqa: PLR2004
        # The hub does not tell a missing repository from one that this token may not see.
        return FailedError("no such repository, or none for this token", hint=_access_hint(asked), kind="access")
    if code == "RevisionNotFound":
        return FailedError(f"has no revision {source.revision!r}", hint=IMPORT_HINT)
    if code in {"EntryNotFound", "RemoteEntryNotFound", "LocalEntryNotFound"}:
        return FailedError(f"has no file {source.path!r}", hint=IMPORT_HINT)
    if status in {401, 403}:
        return FailedError(f"refuses access ({status})", hint=_access_hint(asked), kind="access")
    return None


def _access_hint(asked: _Asked) -> str:
    page = f"{_page(asked.hub)}/{asked.source.repository}"
    login = "use a token of that account" if asked.token else "set HF_TOKEN or log in with `hf auth login`"
    return f"accept the conditions on {page}, and {login}"


def _page(hub: Hub) -> str:
    try:
        return parse(hub.endpoint).shown.rstrip("/")
    except AddressError:
        return "the hub"
