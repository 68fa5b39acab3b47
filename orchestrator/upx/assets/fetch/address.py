"""Addresses: taken apart, checked, and shown without what must not be seen. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin, urlsplit

_PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What RFC 3986 lets stand in a path or query, and the percent sign: quoted text is not quoted again.
_TARGET = "/?%:@!$&'()*+,;=~-._"
# Keys of a query that say which file, not who asks.
_PLAIN_KEYS = {"id", "export", "download", "confirm", "raw", "dl"}
MAX_LENGTH = 16_384


class AddressError(ValueError):
    """An address that cannot be used; its text says why and names no more than is fit to be seen."""


@dataclass(frozen=True, slots=True)
class Address:
    """A web address: ``target`` is path and query, ``login`` a ``name:password`` that it came with."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    login: str = field(default="", repr=False)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What has to be the same for a login to be sent on."""
        return self.scheme, self.host, self.port

    @property
    def place(self) -> str:
        """Host and port, the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """All of it but the login."""
        return f"{self.scheme}://{self.place}{self.target}"

    @property
    def shown(self) -> str:
        """Fit for messages and receipts: no login, and of the query only what names the file."""
        path, _, query = self.target.partition("?")
        kept = [(key, value) for key, value in parse_qsl(query) if key.lower() in _PLAIN_KEYS]
        return f"{self.scheme}://{self.place}{path}" + (f"?{urlencode(kept)}" if kept else "")


def parse(text: str) -> Address:
    """The address in ``text``; AddressError when it is none for http or https, or holds what could do harm."""
    if _CONTROL.search(text) or len(text) > MAX_LENGTH:
        raise AddressError("the address holds control characters" if len(text) <= MAX_LENGTH else "it is too long")
    try:
        parts = urlsplit(text)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode() if ":" not in (parts.hostname or "") else parts.hostname
    except ValueError as error:  # UnicodeError is one
        raise AddressError("the address cannot be read") from error
    if parts.scheme not in _PORTS:
        raise AddressError(f"the address is for {parts.scheme or 'no scheme'!r}, not for http or https")
    if not host or re.search(r"[\s/\\@]", host):
        raise AddressError("the address names no host")
    target = quote(parts.path or "/", safe=_TARGET) + (f"?{quote(parts.query, safe=_TARGET)}" if parts.query else "")
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else ""
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], target, login)


def follow(current: Address, location: str) -> Address:
    """Where a redirect leads; AddressError when it must not be followed.

    From https only https is followed. A login in the redirect itself is dropped: it is the server's, not the user's.
    """
    if _CONTROL.search(location.strip()):  # urljoin would drop them
        raise AddressError("the address holds control characters")
    target = parse(urljoin(current.text, location.strip()))
    if current.scheme == "https" and target.scheme != "https":
        raise AddressError(f"a redirect leaves https for {target.scheme}")
    login = current.login if target.origin == current.origin else ""
    return Address(target.scheme, target.host, target.port, target.target, login)
