"""How a verb gets its host: one place, so that a test can put another one there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from upx.config import Settings
    from upx.host import Host


def read_settings() -> Settings:
    """The settings of this process; UsageError names a variable that cannot be used."""
    from upx.config import Settings

    return Settings.from_env()


def make_host(on_event: Callable[[object], None] | None = None) -> Host:
    """A host for this process, to be used as a context manager."""
    from upx.host import Host

    return Host(read_settings(), on_event)
