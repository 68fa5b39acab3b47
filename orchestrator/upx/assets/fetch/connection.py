"""Open a connection to a host, directly or through a proxy, without waiting longer than is wanted."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

from upx.assets.fetch.address import Address, AddressError, parse
from upx.assets.fetch.aside import LeftError, aside
from upx.assets.fetch.failures import NETWORK_HINT, FailedError, UnreachableError
from upx.assets.fetch.wire import PatientSocket

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from upx.assets.fetch.network import Network

# A host that has not answered by then will not.
CONNECT_S = 10.0


def proxy_for(address: Address, proxies: Mapping[str, str]) -> Address | None:
    """The proxy on the way to ``address``; None without one. FailedError for one that is not understood."""
    text = proxies.get(address.scheme) or proxies.get("all", "")
    if not text or goes_directly(address, proxies.get("no", "")):
        return None
    try:
        return parse(text if "://" in text else f"http://{text}")
    except AddressError as error:
        raise FailedError(f"the proxy for {address.scheme}: {error}", hint=NETWORK_HINT, kind="network") from error


def goes_directly(address: Address, exceptions: str) -> bool:
    """Whether ``no_proxy`` names the host: itself, a domain above it, or it with its port; ``*`` names all."""
    host, port = address.host.lower(), address.port
    names = [name.strip().lower().lstrip(".") for name in exceptions.split(",")]
    return any(
        name == "*" or name in {host, f"{host}:{port}", address.place} or (name and host.endswith(f".{name}"))
        for name in names
    )


def connect(address: Address, network: Network, cancel: threading.Event) -> http.client.HTTPConnection:
    """A connection whose socket is a PatientSocket; UnreachableError when nobody answers."""
    proxy = proxy_for(address, network.proxies)
    connection = _prepare(address, proxy, network)
    place = (proxy or address).place
    try:
        seconds = min(CONNECT_S, network.timeout)
        aside(partial(_dial, connection), seconds=seconds, cancel=cancel, drop=http.client.HTTPConnection.close)
    except LeftError as error:
        raise UnreachableError(f"cannot reach {place}: no answer") from error
    except ssl.SSLCertVerificationError as error:
        hint = "SSL_CERT_FILE names a file of certificates to trust, such as a company's"
        raise FailedError(f"the certificate of {place} cannot be verified", hint=hint) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise UnreachableError(f"cannot reach {place}: {_reason(error)}") from error
    # http.client needs three of a socket's methods.
    connection.sock = PatientSocket(connection.sock, timeout=network.timeout, cancel=cancel)
    return connection


def login_header(login: str) -> str:
    """``name:password`` as HTTP's basic scheme sends it."""
    return "Basic " + base64.b64encode(login.encode()).decode()


def _dial(connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
    try:
        connection.connect()
    except Exception:
        connection.close()
        raise
    return connection


def _reason(error: Exception) -> str:
    """Why a connection failed, in few words."""
    if isinstance(error, socket.gaierror):
        return "no such host, or no network"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLError):
        return "no secure connection"
    text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return text.splitlines()[0][:80]


def _prepare(address: Address, proxy: Address | None, network: Network) -> http.client.HTTPConnection:
    first = proxy or address
    timeout = min(CONNECT_S, network.timeout)
    if address.scheme == "http":
        return http.client.HTTPConnection(first.host, first.port, timeout=timeout)
    connection = http.client.HTTPSConnection(first.host, first.port, timeout=timeout, context=_context(network))
    if proxy is not None:
        headers = {"Proxy-Authorization": login_header(proxy.login)} if proxy.login else {}
        connection.set_tunnel(address.host, address.port, headers)
    return connection


def _context(network: Network) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if network.cert_file or network.cert_dir:
        # A path that cannot be read leaves the system's certificates.
        with contextlib.suppress(OSError):
            context.load_verify_locations(network.cert_file or None, network.cert_dir or None)
    return context
