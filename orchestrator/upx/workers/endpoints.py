"""Where workers are reached: the private folder of sockets, the names in it, and CURVE keys where there is only tcp."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from upx.errors import UsageError, WorkerStartError
from upx.private_files import changing, is_private, read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.config import Settings

Transport: TypeAlias = Literal["ipc", "tcp"]
# sun_path holds 108 bytes with its end on Linux, 104 elsewhere.
LONGEST_PATH = 103
NAME_LENGTH = len("/") + 16 + len(".sock")
LOOPBACK = "tcp://127.0.0.1:*"
_SOCKET = re.compile(r"^ipc://.*/(?P<nonce>[0-9a-f]{16})\.sock$")
ANOTHER = "remove it, and another is made"


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What the worker reads from its ``curve_keys`` file: its own pair, and the one client that it lets in. Z85."""

    server_public: str
    server_secret: str
    client_public: str


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """The pair that all hosts of this user show to workers. Z85."""

    public: str
    secret: str


def socket_folder(settings: Settings) -> Path:
    """The folder for sockets: ours, 0700 and short enough; WorkerStartError where there is none.

    The runtime directory if it can be used, else a folder in the temporary directory, whose name says whose it is.
    """
    if settings.runtime_dir is not None and _usable(settings.runtime_dir):
        return settings.runtime_dir
    root = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108  checked below
    owner = os.getuid() if hasattr(os, "getuid") else 0
    key = hashlib.sha256(os.fsencode(settings.state_dir)).hexdigest()[:8]
    folder = root / f"upx-{owner}-{key}"
    if _usable(folder):
        return folder
    raise WorkerStartError(
        f"no private folder for the workers' sockets: {folder} is not ours alone",
        hint="set UPX_HOME to a folder with a short path that only you can enter",
    )


def _usable(folder: Path) -> bool:
    if len(os.fsencode(folder)) + NAME_LENGTH > LONGEST_PATH:
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return is_private(folder)
    except OSError:
        return False


def new_endpoint(settings: Settings, transport: Transport) -> str:
    """What a new worker binds: a socket with a name that nothing had before, or a free port of the loopback."""
    if transport == "tcp":
        return LOOPBACK
    return f"ipc://{socket_folder(settings)}/{secrets.token_hex(8)}.sock"


def nonce(endpoint: str) -> int:
    """What a socket's name has to itself, before and after it is bound; 0 where the endpoint is none of ours."""
    name = _SOCKET.search(endpoint)
    return int(name["nonce"], 16) if name is not None else 0


def remove_socket(endpoint: str) -> None:
    """Remove the socket of a worker that is gone; only ever a socket."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc:///") or not path.name.endswith(".sock"):
        return
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        return


def curve_keys(settings: Settings, new_pair: Callable[[], tuple[str, str]]) -> tuple[Path, ClientKeys]:
    """The worker's key file and the hosts' pair, made on first use, 0600. ``new_pair``: (public, secret)."""
    folder = settings.state_dir / "curve"
    worker, client = folder / "worker.json", folder / "client.json"
    if not _made(worker, client):
        # Two first commands at a time: the second waits the milliseconds that the first needs.
        with changing(folder):
            if not _made(worker, client):
                _make_keys(worker, client, new_pair)
    return worker, read_pair(client)


def _made(worker: Path, client: Path) -> bool:
    return client.is_file() and worker.is_file()


def read_pair(path: Path, *, hint: str = ANOTHER) -> ClientKeys:
    """A pair of keys as its private file holds it; UsageError for anything else, OSError where there is none."""
    public, secret = _read(path, "public", "secret", hint=hint)
    return ClientKeys(public, secret)


def _read(path: Path, *names: str, hint: str) -> list[str]:
    try:
        fields = cast("dict[str, Any]", json.loads(read_private(path)))
        return [str(fields[name]) for name in names]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no pair of keys", hint=hint) from error


def _make_keys(worker: Path, client: Path, new_pair: Callable[[], tuple[str, str]]) -> None:
    # Two pairs: a server's key must never be a client's.
    ours, theirs = ClientKeys(*new_pair()), new_pair()
    # Who reads them without the lock must never find one of these beside one of those before.
    client.unlink(missing_ok=True)
    write_private(worker, json.dumps(asdict(CurveKeys(*theirs, ours.public))))
    write_private(client, json.dumps(asdict(ours)))


def client_keys(settings: Settings, curve_public: str, new_pair: Callable[[], tuple[str, str]]) -> ClientKeys:
    """The pair that this user's hosts show to a worker on this machine, by the worker's public key.

    One that serves a network knows its own machine by the pair that boxes see.
    """
    worker, keys = curve_keys(settings, new_pair)
    (own,) = _read(worker, "server_public", hint=ANOTHER)
    far = settings.data_dir / "keys" / "client.json"
    return keys if own == curve_public or not far.is_file() else read_pair(far)
