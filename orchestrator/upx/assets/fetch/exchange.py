"""One question to a server and its answer, redirects followed."""

from __future__ import annotations

import contextlib
import http.client
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from upx import __version__
from upx.assets.fetch.address import Address, AddressError, follow
from upx.assets.fetch.connection import connect, login_header, proxy_for
from upx.assets.fetch.failures import DropError, FailedError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Mapping
    from email.message import Message

    from upx.assets.fetch.network import Network
    from upx.assets.fetch.wire import Wire

MAX_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
Follow: TypeAlias = "Callable[[Address, Address], bool]"


@dataclass(frozen=True, slots=True)
class Request:
    """``secret`` headers are dropped by the first redirect to another origin.

    ``follow`` says which redirects are followed; what is not followed is the answer.
    """

    address: Address
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    secret: Mapping[str, str] | None = None
    follow: Follow = lambda _here, _there: True


class Answer:
    """What a server said: status, headers, and the body in blocks."""

    def __init__(self, response: http.client.HTTPResponse, address: Address, wire: Wire) -> None:
        self._response = response
        self._wire = wire
        self.address = address
        self.status = response.status
        self.headers: Message = response.headers
        # None where the end is marked in another way.
        self.length: int | None = response.length
        # Only the end of the connection says that the body has ended.
        self.open_ended = response.length is None and not response.chunked

    def read(self, most: int) -> bytes:
        """The next bytes, at most ``most``; empty at the end, be it early or not."""
        self._wire.allow(most)
        with drops():
            return self._response.read1(most)

    def head_of_body(self, most: int) -> str:
        """The beginning of a page for people; what cannot be read is left out."""
        parts: list[bytes] = []
        left = most
        with contextlib.suppress(DropError):
            while left > 0 and (block := self.read(left)):
                parts.append(block)
                left -= len(block)
        return b"".join(parts).decode("utf-8", errors="replace")


@contextmanager
def ask(request: Request, network: Network, cancel: threading.Event) -> Generator[Answer]:
    """The answer to ``request``, or to what it is redirected to.

    DropError when the connection breaks, FailedError for redirects that must not be followed.
    """
    address = request.address
    for _ in range(MAX_REDIRECTS + 1):
        with _ask_once(request, address, network, cancel) as answer:
            target = _redirect(answer)
            if target is None or not request.follow(address, target):
                yield answer
                return
        if target.origin != address.origin:
            request = replace(request, secret=None)  # for good, even if it leads back
        address = target
    raise FailedError(f"more than {MAX_REDIRECTS} redirects")


@contextmanager
def drops() -> Generator[None]:
    """Turn what breaks a connection into DropError."""
    try:
        yield
    except http.client.IncompleteRead as error:
        raise DropError("the connection ended early") from error
    except http.client.HTTPException as error:
        raise DropError(f"the answer is no HTTP ({type(error).__name__})") from error
    except OSError as error:
        raise DropError(f"the connection broke ({error.strerror or type(error).__name__})") from error


@contextmanager
def _ask_once(request: Request, address: Address, network: Network, cancel: threading.Event) -> Generator[Answer]:
    connection = connect(address, network, cancel)
    patient: Any = connection.sock
    try:
        with drops():
            connection.request(request.method, _target(address, network), headers=_headers(request, address, network))
            response = connection.getresponse()
        with response:
            yield Answer(response, address, patient.wire)
    finally:
        patient.hang_up()


def _target(address: Address, network: Network) -> str:
    """A proxy for http is given the whole address."""
    proxied = address.scheme == "http" and proxy_for(address, network.proxies) is not None
    return address.text if proxied else address.target


def _headers(request: Request, address: Address, network: Network) -> dict[str, str]:
    headers = {
        "User-Agent": f"upx/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    headers |= request.headers or {}
    if address.login:
        headers["Authorization"] = login_header(address.login)
    headers |= request.secret or {}
    proxy = proxy_for(address, network.proxies) if address.scheme == "http" else None
    if proxy is not None and proxy.login:
        headers["Proxy-Authorization"] = login_header(proxy.login)
    return headers


def _redirect(answer: Answer) -> Address | None:
    location = answer.headers.get("Location")
    if answer.status not in _REDIRECTS or not location:
        return None
    try:
        return follow(answer.address, location)
    except AddressError as error:
        raise FailedError(f"a redirect that is not followed: {error}") from error
