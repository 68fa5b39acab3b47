"""How the network is reached: proxies, certificates, the hub, and how long to be patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upx.config import Hub

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upx.config import Settings

_PROXIES = ("http", "https", "all", "no")


@dataclass(frozen=True, slots=True)
class Network:
    """``proxies``: scheme (``http``, ``https``, ``all``) -> its address; ``no``: hosts that are reached without one.

    ``timeout``: seconds to connect, and seconds of silence after which a connection is given up. ``tries``: how many
    in a row may bring no new byte. ``backoff``: seconds before the second try, doubled with each. ``drive_base`` and
    ``onedrive_base`` are where those services are. ``cert_file`` and ``cert_dir`` are trusted beside the system's.
    """

    proxies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    hub: Hub = field(default_factory=Hub)
    timeout: float = 30.0
    tries: int = 6
    backoff: float = 0.5
    drive_base: str = "https://drive.usercontent.google.com"
    onedrive_base: str = "https://api.onedrive.com/v1.0"
    cert_file: str = ""
    cert_dir: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> Network:
        """The user's network; a variable in lower case wins, as everywhere."""
        env = settings.network_env
        found = {name: env.get(f"{name}_proxy") or env.get(f"{name}_proxy".upper(), "") for name in _PROXIES}
        return cls(
            proxies={name: value for name, value in found.items() if value},
            hub=settings.hub,
            cert_file=env.get("SSL_CERT_FILE", ""),
            cert_dir=env.get("SSL_CERT_DIR", ""),
        )
