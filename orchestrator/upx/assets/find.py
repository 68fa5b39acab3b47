"""Find a model's files and verify them before a worker may read them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from upx.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from upx.specs import Asset, ModelSpec


def find_assets(model: ModelSpec, site_packages: Path, *, backend: str) -> dict[str, Path]:
    """The model's files inside its environment's packages, by role.

    Each is compared with its size and sha256. WeightsError names the first that is missing or differs.
    """
    files: dict[str, Path] = {}
    for asset in model.assets:
        path = site_packages / asset.source.package / asset.source.path
        problem = _problem(asset, path)
        if problem:
            raise WeightsError(
                f"weights of {model.name}: {asset.file} {problem}", hint=f"upx setup {backend} --repair brings it back"
            )
        files[asset.role] = path
    return files


def explicit_assets(model: ModelSpec, weights: Path) -> dict[str, Path]:
    """The user's own files instead of the released ones: a folder with the same file names, or the one file.

    They are not compared with a hash. WeightsError names what is missing.
    """
    if weights.is_file() and len(model.assets) == 1:
        return {model.assets[0].role: weights}
    files = {asset.role: weights / asset.file for asset in model.assets}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing or not files:
        raise WeightsError(
            f"{weights} is no set of weights for {model.name}: {', '.join(missing) or 'it has none'} not found",
            hint=f"give a folder that holds {', '.join(asset.file for asset in model.assets)}",
        )
    return files


def digest(model: ModelSpec, files: Mapping[str, Path], *, explicit: bool) -> str:
    """One sha256 for all of a model's files: from the manifest, or from the user's own files' bytes."""
    if not explicit and len(model.assets) == 1:
        return model.assets[0].sha256
    whole = hashlib.sha256()
    for asset in sorted(model.assets, key=lambda asset: asset.role):
        whole.update(f"{asset.role}:{_sha256(files[asset.role]) if explicit else asset.sha256}\n".encode())
    return whole.hexdigest()


def _problem(asset: Asset, path: Path) -> str:
    try:
        if path.stat().st_size != asset.size:
            return f"has {path.stat().st_size} bytes instead of {asset.size}"
        return "" if _sha256(path) == asset.sha256 else "differs from its sha256"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
