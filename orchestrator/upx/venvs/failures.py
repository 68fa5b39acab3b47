"""Why uv failed, told from its words (its exit codes do not tell), and the error that says what to do next."""

from __future__ import annotations

import errno
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from upx.errors import (
    DiskFullError,
    EnvBuildError,
    HashMismatchError,
    NetworkError,
    NoSuchVersionError,
    PythonMissingError,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


class Kind(Enum):
    """What can go wrong with a build."""

    DISK = "disk"
    HASH = "hash"
    ARCHIVE = "archive"
    LOCK = "lock"
    PYTHON = "python"
    OFFLINE = "offline"
    NETWORK = "network"
    VERSION = "version"
    KILLED = "killed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed uv: ``package`` is the requirement that it names (``name==version``), ``log`` its last words."""

    kind: Kind
    package: str
    log: str


@dataclass(frozen=True, slots=True)
class Context:
    """What an error can tell of the build that failed; ``space`` are folders that it writes to."""

    env: str
    request: str
    lock: Path
    space: tuple[Path, ...]


# The first that matches wins: a full disk breaks downloads too, a broken connection leaves a broken archive.
_SIGNS: tuple[tuple[Kind, str], ...] = (
    (Kind.DISK, r"No space left on device|not enough space on the disk|[Dd]isk quota exceeded"),
    (Kind.HASH, r"Hash mismatch for"),
    (Kind.LOCK, r"Invalid hash digest|requirements must have a hash|must have their versions pinned|Couldn't parse"),
    (Kind.OFFLINE, r"network was disabled|[Nn]etwork connectivity is disabled|unavailable.{0,40}network is disabled"),
    (Kind.PYTHON, r"No interpreter found|No download found for request|No (?:Python|virtual environment) found"),
    (
        Kind.NETWORK,
        (
            r"Request failed after|error sending request|[Ff]ailed to fetch|dns error|tcp connect error|timed? ?out"
            r"|error decoding response body|Connection reset|HTTP status (?:client|server) error|peer certificate"
        ),
    ),
    (Kind.ARCHIVE, r"Failed to extract|[Ii]nvalid (?:zip|archive|wheel)|decompression error|not a valid zip|Bad CRC"),
    (Kind.VERSION, r"No solution found"),
)
_PACKAGE = re.compile(
    r"Hash mismatch for `([^`]+)`|Failed to (?:download|build|install|extract|fetch)[^`\n]*`([^`]+)`"
    r"|require ([A-Za-z0-9][\w.+-]*==[\w.+!-]*[\w])|provided for: (\S+)"
)


def classify(log: str, *, code: int) -> Failure:
    """What ``log``, uv's output, says; ``code`` is its exit status, negative for a signal."""
    kind = next((kind for kind, sign in _SIGNS if re.search(sign, log)), Kind.OTHER)
    if code < 0 and kind is Kind.OTHER:
        kind = Kind.KILLED
    match = _PACKAGE.search(log)
    package = next((group for group in match.groups() if group), "") if match else ""
    return Failure(kind, package, log)


def error_for(failure: Failure, about: Context) -> EnvBuildError:
    """The error to raise, with its next step."""
    if failure.kind is Kind.DISK:
        return _disk_full(failure, about)
    kind, message, hint = _WORDS[failure.kind]
    name = failure.package or "a package"
    known = {"env": about.env, "package": name, "request": about.request, "lock": about.lock}
    hint = hint.format(**known) if hint else bring(f"{about.env}'s lock", about.lock)
    return kind(message.format(**known), hint=hint, package=failure.package, log=failure.log)


@contextmanager
def own_errors(env: str, root: Path) -> Generator[None]:
    """Our own calls to the file system below ``root``, with their failures as errors of ours."""
    try:
        yield
    except OSError as error:
        log, hint = str(error), f"set UPX_HOME to a folder that can be written; this one is {root}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _disk_full(Failure(Kind.DISK, "", log), Context(env, "", root, (root,))) from error
        what = f"{error.strerror or type(error).__name__}: {error.filename}"
        raise EnvBuildError(f"the environment of {env} cannot be used ({what})", hint=hint, log=log) from error


def bring(what: str, lock: Path) -> str:
    """What to do about packages that are not here while the network is off."""
    return (
        f"bring the wheels of {what} (`pip download --no-deps --require-hashes -r {lock} -d WHEELS` where there is a"
        " network) and set UPX_WHEELHOUSE to their folder, or run once without --offline"
    )


def _disk_full(failure: Failure, about: Context) -> DiskFullError:
    free = min((shutil.disk_usage(path).free for path in about.space if path.exists()), default=0)
    written = sum(tree_bytes(path) for path in about.space[:1])
    message = (
        f"no space left while {about.env} was built: it had written {_megabytes(written)}, and {_megabytes(free)} is"
        f" free now at {about.space[0].parent}"
    )
    hint = "free some space (`upx env prune`, `uv cache prune`), or set UPX_HOME and UPX_UV_CACHE to a larger disk"
    needed = written + free
    return DiskFullError(message, hint=hint, package=failure.package, log=failure.log, needed=needed, free=free)


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``, each counted where it stands; files that vanish count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


_LOG = "`upx setup {env} -v` shows uv's output"
_WORDS: dict[Kind, tuple[type[EnvBuildError], str, str]] = {
    Kind.HASH: (
        HashMismatchError,
        "{package} differs from the hash in the lock of {env}; nothing was built",
        "the index, mirror or wheelhouse serves another file: check UPX_INDEX and UPX_WHEELHOUSE",
    ),
    Kind.ARCHIVE: (
        HashMismatchError,
        "the file of {package} for {env} is damaged; nothing was built",
        "fetch it anew: check the wheel in UPX_WHEELHOUSE, or the index",
    ),
    Kind.LOCK: (
        EnvBuildError,
        "the lock of {env} cannot be used: {package} has no usable hash in {lock}",
        "compile it anew with `uv pip compile --generate-hashes`",
    ),
    Kind.PYTHON: (
        PythonMissingError,
        "no Python {request} was found for {env}",
        "install Python {request}, set UPX_PYTHON to an interpreter, or run without --offline so that uv fetches one",
    ),
    Kind.OFFLINE: (
        EnvBuildError,
        "{package} is needed for {env}, is not in uv's cache, and the network is off",
        "",  # bring()
    ),
    Kind.NETWORK: (
        NetworkError,
        "the package index could not be reached while {env} was built",
        "check the network and HTTPS_PROXY, set UPX_INDEX to a mirror, or use UPX_WHEELHOUSE with --offline",
    ),
    Kind.VERSION: (
        NoSuchVersionError,
        "the lock of {env} cannot be satisfied on this machine: {package} has no file for it",
        "another Python (UPX_PYTHON) or index (UPX_INDEX) may have it; " + _LOG,
    ),
    Kind.KILLED: (
        EnvBuildError,
        "uv was killed while {env} was built",
        "run it again; if it happens again, look for a limit on memory or time",
    ),
    Kind.OTHER: (EnvBuildError, "uv could not build {env}", _LOG),
}
