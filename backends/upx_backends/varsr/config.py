"""The sizes of a VARSR network; the defaults are the released one's. A ``config.json`` may override any of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Pixels of the picture to one of the latent, on each axis: the VQVAE halves four times, and so does the conditioner.
DOWNSAMPLING = 16
CONFIG_BYTES = 1_000_000


@dataclass(frozen=True)
class Config:
    """``sides``: of the token grids, from coarse to fine. ``latent``: channels of the VQVAE's latent.

    ``vae_width`` is multiplied by ``vae_multipliers`` from the picture's size down to the latent's. ``conditioner``:
    channels of its convolutions, which halve between each two. ``refiner_steps`` of 1000 are kept.
    """

    sides: tuple[int, ...] = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
    vocabulary: int = 4096
    latent: int = 32
    vae_width: int = 160
    vae_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    vae_blocks: int = 3
    groups: int = 32
    width: int = 1536
    depth: int = 24
    heads: int = 24
    mlp_ratio: int = 4
    conditioner: tuple[int, ...] = (32, 128, 256, 512, 1536)
    refiner_width: int = 1024
    refiner_depth: int = 6
    refiner_steps: int = 10

    @property
    def side(self) -> int:
        """Rows, and columns, of the latent."""
        return self.sides[-1]

    @property
    def prefix(self) -> int:
        """Tokens that the transformer begins with: the picture's, and the class."""
        return self.side**2 + 1

    @property
    def tokens(self) -> int:
        """All tokens; the class token stands for the first grid, which is 1 x 1."""
        return self.side**2 + sum(side**2 for side in self.sides)

    @property
    def pixels(self) -> int:
        """Side of the picture that the network draws."""
        return self.side * DOWNSAMPLING


def read_config(path: str | None) -> Config:
    """The released sizes, with those of the file at ``path``; BadInputError names the first key that is none."""
    if path is None:
        return Config()
    name = Path(path).name
    try:
        with Path(path).open("rb") as file:
            table = json.loads(file.read(CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{name} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise BadInputError(f"{name} holds no object")
    return _checked({**vars(Config()), **_known(table, name)}, name)


def _known(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table's values as Config has them: whole numbers above zero, or lists of them."""
    single = {each.name: isinstance(each.default, int) for each in fields(Config)}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in single:
            raise BadInputError(f"{name}: unknown key {key!r}; the keys are {', '.join(single)}")
        numbers = [value] if single[key] else value
        if not isinstance(numbers, list) or not numbers or any(type(each) is not int or each < 1 for each in numbers):
            what = "a whole number" if single[key] else "a list of whole numbers"
            raise BadInputError(f"{name}: {key} must be {what} above zero, not {value!r}")
        found[key] = value if single[key] else tuple(value)
    return found


def _checked(values: Mapping[str, Any], name: str) -> Config:
    """The config, where its parts fit each other."""
    config = Config(**values)
    halvings = (len(config.vae_multipliers) - 1, len(config.conditioner) - 1)
    wrong = {
        "sides must begin with 1 and rise": config.sides[0] != 1 or sorted(set(config.sides)) != list(config.sides),
        "sides must be two or more": len(config.sides) < 2,  # noqa: PLR2004
        "refiner_steps must be 2 to 1000": not 2 <= config.refiner_steps <= 1000,  # noqa: PLR2004
        "width must be a multiple of 4 * heads": config.width % (4 * config.heads) != 0,
        "vae_width must be a multiple of groups": config.vae_width % config.groups != 0,
        "vae_multipliers and conditioner must have five entries": any(2**each != DOWNSAMPLING for each in halvings),
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise BadInputError(f"{name}: {message}")
    return config
