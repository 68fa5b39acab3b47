"""The keys of this machine: what its hosts show to boxes, what it shows as a box, and whom it lets in as one.

Three files below ``<data>/keys``, 0600 in a folder 0700: ``client.json`` and ``server.json``, a CURVE pair each, never
the same, made when they are first needed; ``allowed``, a line ``NAME KEY`` for each client. A worker that serves reads
``allowed`` again whenever it changes. Public keys are 64 hexadecimal digits wherever people see them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from upx.errors import UsageError
from upx.private_files import changing, read_private, write_private
from upx.remote.names import NAME, parse_key
from upx.workers.channel import key_from_text, key_text, new_key_pair
from upx.workers.endpoints import ClientKeys, CurveKeys, read_pair
from upx_protocol.allowlist import parse_allowed

if TYPE_CHECKING:
    from pathlib import Path

    from upx.config import Settings

Which: TypeAlias = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class Allowed:
    """A client that this machine lets in as a box."""

    name: str
    key: str


class KeyRing:
    """Every method reads the files anew; those that change one hold the folder's lock. OSError: no such access."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.data_dir / "keys"
        self.list_path = self.folder / "allowed"

    def client(self) -> ClientKeys:
        """The pair that hosts of this machine show to boxes; made on first use. Z85."""
        return self._pair("client")

    def public(self, which: Which) -> str:
        """A public key, in hexadecimal; the pair is made on first use."""
        return key_text(self._pair(which).public)

    def worker_file(self) -> Path:
        """The file that a serving worker reads its keys from, brought up to date."""
        server, client = self._pair("server"), self._pair("client")
        path = self.folder / "worker.json"
        with changing(self.folder):
            told = CurveKeys(server.public, server.secret, client.public)
            write_private(path, json.dumps(asdict(told)))
            if not self.list_path.exists():
                write_private(self.list_path, "")
        return path

    def new(self, which: Which) -> str:
        """Replace a pair; the public key. Whoever knows the old one must be told."""
        with changing(self.folder):
            return key_text(self._make(which).public)

    def allowed(self) -> list[Allowed]:
        """Whom this machine lets in, in the order of the list."""
        return [Allowed(name, key) for key, name in filter(None, map(parse_allowed, self._lines()))]

    def allow(self, name: str, key: str) -> Allowed:
        """Let a client in; UsageError for no name, no key, or a name that another key has."""
        if NAME.fullmatch(name) is None:
            raise UsageError(f"{name!r} is no name", hint="letters, digits, dots and dashes: laptop")
        entry = Allowed(name, parse_key(key))
        if entry.key == self.public("server"):
            raise UsageError("that is this machine's own key as a server", hint="upx key show on the client says its")
        with changing(self.folder):
            known = {each.name: each.key for each in self.allowed()}
            if known.get(name, entry.key) != entry.key:
                raise UsageError(f"{name} has another key here", hint=f"upx key revoke {name}, then allow it again")
            if name not in known:
                write_private(self.list_path, "".join(f"{line}\n" for line in [*self._lines(), f"{name} {entry.key}"]))
        return entry

    def revoke(self, word: str) -> list[Allowed]:
        """Let a name or a key in no more, from now on, whatever is going on; UsageError where nobody has it."""
        with changing(self.folder):
            gone = [each for each in self.allowed() if word in {each.name, each.key} or word.lower() == each.key]
            if not gone:
                known = ", ".join(each.name for each in self.allowed()) or "nobody"
                raise UsageError(f"nobody is allowed as {word!r}", hint=f"allowed are: {known}")
            keys = {each.key for each in gone}
            gone = [each for each in self.allowed() if each.key in keys]
            left = [line for line in self._lines() if (parse_allowed(line) or ("",))[0] not in keys]
            write_private(self.list_path, "".join(f"{line}\n" for line in left))
        return gone

    def _lines(self) -> list[str]:
        try:
            return read_private(self.list_path).splitlines()
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise UsageError(f"{self.list_path} is no text", hint="remove it, and allow the clients again") from error

    def _pair(self, which: Which) -> ClientKeys:
        path = self.folder / f"{which}.json"
        if not path.exists():
            with changing(self.folder):
                if not path.exists():
                    return self._make(which)
        return read_pair(path, hint=f"upx key new {which} makes another")

    def _make(self, which: Which) -> ClientKeys:
        pair = ClientKeys(*new_key_pair())
        write_private(self.folder / f"{which}.json", json.dumps(asdict(pair)))
        return pair


def z85(key: str) -> str:
    """A key in ZeroMQ's own text."""
    return key_from_text(key)
