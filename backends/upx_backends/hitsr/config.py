"""A network's sizes: as released, changed by a ``config.json`` whose keys are the authors' names, and its family."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upx_backends.hitsr.model import COLOURS, Config
from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

# What another value would make another network, which is not here.
FIXED = {
    "in_chans": COLOURS, "patch_size": 1, "upsampler": "pixelshuffledirect", "resi_connection": "1conv", "ape": False,
    "patch_norm": True, "qkv_bias": True,
}  # fmt: skip
# Of any size, and of how many there are: far above what runs, and far below what cannot even be described.
LARGEST = 10_000
BASE, RATIOS = "base_win_size", "hier_win_ratios"


def family_of(names: Iterable[str]) -> str:
    """Which of the three networks has tensors of these names."""
    names = list(names)
    if any(".ngram_window_partition." in name for name in names):
        return "sng"
    return "srf" if any(".mlp.dwconv." in name for name in names) else "sir"


def read_config(path: str | None, family: str, scale: int) -> Config:
    """The released sizes for that scale, changed by the file at ``path`` where there is one.

    BadInputError names the first key that is wrong; keys that change nothing here (img_size, drop rates) pass.
    """
    table = _table(path) if path else {}
    for key, value in FIXED.items():
        if table.get(key, value) != value:
            raise BadInputError(f"config.json: {key} is {table[key]!r}, and only {value!r} is implemented")
    if table.get("upscale", scale) != scale:
        raise BadInputError(f"wrong scale: config.json says x{table['upscale']}, the model asked for is x{scale}")
    try:
        config = Config(family=family, scale=scale, **_sizes(table))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError) as error:
        raise BadInputError(f"config.json: {error}") from error
    _check(config)
    return config


def _table(path: str) -> dict[str, Any]:
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"config.json cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise BadInputError("config.json holds no table")
    return table


def _sizes(table: dict[str, Any]) -> dict[str, Any]:
    """The fields of Config that the table gives; ValueError or TypeError for a value of another kind."""
    found: dict[str, Any] = {}
    for key, field in (("embed_dim", "dim"), ("depths", "depths"), ("num_heads", "heads")):
        if key in table:
            found[field] = tuple(map(int, table[key])) if field != "dim" else int(table[key])
    for key in ("mlp_ratio", "img_range"):
        if key in table:
            found[key] = float(table[key])
    if BASE in table or RATIOS in table:
        height, width = map(int, table.get(BASE, (8, 8)))
        if height != width:
            raise ValueError(f"{BASE} is {height} x {width}, and only square windows are implemented")
        ratios = map(float, table.get(RATIOS, (0.5, 1, 2, 4, 6, 8)))
        found |= {"base_window": height, "windows": tuple(int(height * ratio) for ratio in ratios)}
    return found


def _check(config: Config) -> None:
    """Sizes that a network can be built of; BadInputError with the first that is none."""
    numbers = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "family"}
    for name, value in numbers.items():
        values = value if isinstance(value, tuple) else (value,)
        if not values or not all(0 < each < LARGEST for each in values):
            raise BadInputError(f"config.json: {name} is {value}, and has to be positive (and below {LARGEST})")
    if len(config.depths) != len(config.heads):
        raise BadInputError(f"config.json: {len(config.depths)} depths and {len(config.heads)} num_heads")
    if max(config.depths) > len(config.windows):
        raise BadInputError(f"config.json: {max(config.depths)} blocks in depths, {len(config.windows)} {RATIOS}")
    for heads in config.heads:
        if config.dim % (2 * heads):
            raise BadInputError(f"config.json: embed_dim {config.dim} is no multiple of twice num_heads {heads}")
    for window in config.windows:
        if window > config.base_window and window % config.base_window:
            raise BadInputError(f"config.json: a window of {window} is no multiple of {config.base_window}")
