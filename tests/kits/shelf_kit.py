"""A shelf with a backend of a user's, whose files come from a local server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx.catalog import Catalog
from upx.config import Settings
from upx.models.shelf import Shelf
from upx.venvs.builder import EnvBuilder

if TYPE_CHECKING:
    from pathlib import Path

    from fault_server import Content

HEAD = """
schema = 1
name = "mine"
{more}
default_model = "mine-x2"
licence = {{ name = "MIT" }}
[[models]]
name = "mine-x2"
scale = 2
{assets}
"""
ASSET = """
[[{table}]]
{model}role = "{role}"
file = "{file}"
{digest}
sources = [{sources}]
"""


def asset_text(
    content: Content | None, *sources: str, role: str = "weights", table: str = "models.assets", **more: str
) -> str:
    """One asset's table; without ``content`` nobody knows its digest."""
    digest = 'unverified = "none was published"'
    if content is not None:
        digest = f'sha256 = "{content.sha256}"\nsize = {content.size}'
    facts = {"file": f"{role}.bin", "digest": digest, "model": "", **more}
    return ASSET.format(table=table, role=role, sources=", ".join(sources), **facts)


def url(address: str) -> str:
    return f'{{ kind = "url", url = "{address}" }}'


def hub(repository: str, path: str) -> str:
    return f'{{ kind = "hf", repository = "{repository}", path = "{path}" }}'


MANUAL = '{ kind = "manual", where = "the author\'s page" }'


def add_backend(home: Path, *assets: str, name: str = "mine", more: str = "", text: str = "") -> Path:
    """Put a backend into a user's folder."""
    folder = home / "data" / "backends" / name
    folder.mkdir(parents=True, exist_ok=True)
    made = text or HEAD.format(more=more, assets="".join(assets))
    (folder / "backend.toml").write_text(made.replace("mine", name))
    (folder / "env.lock").touch()
    return folder


def make_shelf(home: Path, *, convert=None, report=None, **environ: str) -> Shelf:
    settings = Settings.from_env({"UPX_HOME": str(home), "HF_HOME": str(home / "hf"), "HOME": str(home), **environ})
    catalog = Catalog(settings)
    return Shelf(settings, catalog, EnvBuilder(settings), convert or _no_worker, report or (lambda _: None))


def _no_worker(*_: object) -> None:
    raise AssertionError("no pickle is opened here")
