"""A backend's spec, its files and a store, made up for tests of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from upx.assets.receipts import Receipt, now
from upx.specs import Asset, BackendSpec, EnvSpec, ModelSpec, PackageSource, Source

CONTENT = {"net": b"structure", "weights": b"numbers"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def asset(role: str = "weights", content: bytes = CONTENT["weights"], *sources: Source, **more: object) -> Asset:
    """The asset of that content; by default it lies in a package."""
    file = f"m.{role}"
    where = sources or (PackageSource("pack", f"models/{file}"),)
    facts = {"file": file, "sha256": sha256(content), "size": len(content), **more}
    return Asset(role=role, sources=where, **facts)


def model(name: str = "m-x2", *assets: Asset, **more: object) -> ModelSpec:
    return ModelSpec(name, 2, assets or tuple(asset(role, content) for role, content in CONTENT.items()), **more)


def backend(*models: ModelSpec, folder: Path = Path("/nowhere"), **more: object) -> BackendSpec:
    chosen = models or (model(),)
    return BackendSpec(
        name="b", title="B", folder=folder, module="upx_backends.b", env=EnvSpec("b", folder / "env.lock"),
        models=chosen, default_model=chosen[0].name, **more,
    )  # fmt: skip


def receipt(of: ModelSpec, each: Asset, content: bytes, **more: object) -> Receipt:
    facts = {"verified": "manifest", "source": {"kind": "url"}, "time": now(), **more}
    return Receipt(of.name, each.role, each.file, sha256(content), len(content), **facts)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
