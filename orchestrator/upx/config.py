"""Settings: the only reader of the process environment.

``Settings.from_env(os.environ)`` is called once, where the program or the client starts, and passed on.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from upx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a worker or uv may see of the user's environment. Everything else (PYTHONPATH, CUDA tweaks, tokens)
# stays out: a worker's behaviour follows from its env, its manifest and its options alone.
PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP",
    "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "USERPROFILE", "WINDIR",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES",
)  # fmt: skip
# What a download needs beyond that: certificates and proxies.
NETWORK = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "XDG_CACHE_HOME", "XDG_DATA_HOME", "NETRC",
)  # fmt: skip

HUB = "https://huggingface.co"
# More than any disk.
MOST_BYTES = 1 << 60
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(i?)b?")


@dataclass(frozen=True, slots=True)
class Hub:
    """Where the Hugging Face hub is and what it keeps here, by the variables of its own library.

    ``HF_ENDPOINT``; ``HF_HUB_CACHE``, else ``hub`` below ``HF_HOME``, else below the user's cache; ``HF_TOKEN``, else
    the file at ``HF_TOKEN_PATH`` or ``token`` below ``HF_HOME``; ``HF_HUB_OFFLINE``.
    """

    endpoint: str = HUB
    cache: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    offline: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Hub:
        """Read the variables; a home that does not exist means no cache and no token."""
        home = _path(env, "HF_HOME")
        if home is None and (base := _path(env, "XDG_CACHE_HOME") or _home_cache(env)) is not None:
            home = base / "huggingface"
        return cls(
            endpoint=(env.get("HF_ENDPOINT") or HUB).rstrip("/"),
            cache=_path(env, "HF_HUB_CACHE") or (home / "hub" if home else None),
            token=env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN"),
            token_file=_path(env, "HF_TOKEN_PATH") or (home / "token" if home else None),
            offline=env.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"},
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things lie and what the user chose in the environment. Every path is absolute.

    Environment variables: ``UPX_HOME`` (root of the four folders; without it platformdirs' for ``upx``),
    ``UPX_OFFLINE`` (1: never reach out), ``UPX_WHEELHOUSE`` (a folder of wheels searched first),
    ``UPX_INDEX`` (package index passed to uv), ``UPX_UV_CACHE`` (uv's cache), ``UPX_PYTHON`` (interpreter for
    new environments), ``UPX_BACKEND`` (used when none is named), ``UPX_WEIGHTS`` (a folder of weights that is looked
    into first), ``UPX_STORE_CAP`` (bytes that fetched weights may take, as in ``20GB``). uv's own ``UV_CACHE_DIR``,
    ``UV_INDEX_URL``/``UV_DEFAULT_INDEX`` are honoured where ours are not set.
    """

    data_dir: Path
    cache_dir: Path
    state_dir: Path
    runtime_dir: Path | None = None
    offline: bool = False
    wheelhouse: Path | None = None
    index: str | None = None
    uv_cache: Path | None = None
    python: str | None = None
    backend: str | None = None
    weights: Path | None = None
    store_cap: int | None = None
    hub: Hub = field(default_factory=Hub)
    # The part of the user's environment that child processes may inherit.
    child_env: Mapping[str, str] = field(default_factory=dict[str, str])
    network_env: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; UsageError names the variable that cannot be used."""
        env = os.environ if environ is None else environ
        data, cache, state, runtime = _folders(env)
        return cls(
            data_dir=data,
            cache_dir=cache,
            state_dir=state,
            runtime_dir=runtime,
            offline=_flag(env, "UPX_OFFLINE"),
            wheelhouse=_folder(env, "UPX_WHEELHOUSE"),
            index=env.get("UPX_INDEX") or env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL"),
            uv_cache=_path(env, "UPX_UV_CACHE") or _path(env, "UV_CACHE_DIR"),
            python=env.get("UPX_PYTHON"),
            backend=env.get("UPX_BACKEND"),
            weights=_folder(env, "UPX_WEIGHTS"),
            store_cap=_bytes(env, "UPX_STORE_CAP"),
            hub=Hub.from_env(env),
            child_env={name: env[name] for name in PASSED_ON if name in env},
            network_env={name: env[name] for name in NETWORK if name in env},
        )

    @property
    def venvs_dir(self) -> Path:
        """Built environments, one folder per fingerprint."""
        return self.data_dir / "venvs"

    @property
    def weights_dir(self) -> Path:
        """The store of weights."""
        return self.data_dir / "weights"

    @property
    def stage_dir(self) -> Path:
        """Staged copies of the code that workers run."""
        return self.data_dir / "stage"

    @property
    def backends_dir(self) -> Path:
        """Folders of backends that the user added."""
        return self.data_dir / "backends"

    @property
    def workers_dir(self) -> Path:
        """Registry entries of workers, below the boot id."""
        return self.state_dir / "workers"


def _folders(env: Mapping[str, str]) -> tuple[Path, Path, Path, Path | None]:
    """The folders of data, cache, state and, where one is known, sockets."""
    root = _path(env, "UPX_HOME")
    if root is not None:
        return root / "data", root / "cache", root / "state", root / "run"
    from platformdirs import PlatformDirs  # 4 ms that a library user may never need

    dirs = PlatformDirs("upx", appauthor=False)
    xdg = env.get("XDG_RUNTIME_DIR")
    try:
        folders = dirs.user_data_path, dirs.user_cache_path, dirs.user_state_path
    except RuntimeError as error:
        raise UsageError("this user has no home folder", hint="set UPX_HOME to a folder that can be written") from error
    return *folders, Path(xdg) / "upx" if xdg else None


def _path(env: Mapping[str, str], name: str) -> Path | None:
    """The path that a variable names, None where it names none."""
    value = env.get(name)
    if not value:
        return None
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"{name} is {value!r}: nobody's home folder", hint=f"set {name} to a full path") from error


def _folder(env: Mapping[str, str], name: str) -> Path | None:
    """The folder that a variable names, None where it names none."""
    path = _path(env, name)
    if path is not None and not path.is_dir():
        raise UsageError(f"{name} names no folder: {path}", hint="set it to a folder that is there, or unset it")
    return path


def _home_cache(env: Mapping[str, str]) -> Path | None:
    home = env.get("HOME") or env.get("USERPROFILE")
    return Path(home).absolute() / ".cache" if home else None


def _bytes(env: Mapping[str, str], name: str) -> int | None:
    value = env.get(name, "").strip()
    if not value:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise UsageError(f"{name} is {value!r}", hint=f"set {name} to a size such as 20GB") from error


def parse_size(text: str) -> int:
    """Bytes of ``20GB``, ``1.5 GiB``, ``500m`` or ``1000``; ValueError for anything else.

    Units are decimal, those with an i binary.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(text)
    base = 1024 if match[3] else 1000
    size = float(match[1]) * base ** " kmgt".index(match[2] or " ")
    if size > MOST_BYTES:
        raise ValueError(text)
    return int(size)


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value in {"", "0", "false", "no", "off"}:
        return False
    if value in {"1", "true", "yes", "on"}:
        return True
    message = f"{name} is {value!r}"
    raise UsageError(message, hint=f"set {name} to 1 or 0")


IS_WINDOWS = sys.platform == "win32"
