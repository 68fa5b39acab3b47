"""What this machine may send to a box: verified files of one model, by the digests that our own manifest states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from upx.assets.find import Found
from upx.assets.licences import require_licence
from upx.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from upx.assets.find import Finder
    from upx.config import Settings
    from upx.specs import ModelSpec
    from upx_protocol.messages import Wanted


@dataclass(frozen=True, slots=True)
class ModelSupply:
    """Files of ``model``, for a box that computes for this user. ``finder`` makes what looks for them.

    ``accept``: the user accepts its licence by this.
    """

    model: ModelSpec
    settings: Settings
    finder: Callable[[], Finder]
    accept: bool = False

    def __call__(self, wanted: Sequence[Wanted]) -> Mapping[str, Path]:
        """Digest to path of each; WeightsError for one that is not here, and LicenceError before any is passed on.

        A digest that is none of this model's is nothing that we have, whoever asks.
        """
        require_licence(self.model, self.settings, accept_now=self.accept)
        finder = self.finder()
        assets = {asset.sha256: asset for asset in self.model.assets if asset.sha256}
        paths: dict[str, Path] = {}
        for each in wanted:
            asset = assets.get(each.sha256)
            # Never what --weights or UPX_WEIGHTS name: that is not the released file.
            found = asset and finder.find(self.model, asset, places=("store", "hub", "package"))
            if not isinstance(found, Found) or found.sha256 != each.sha256:
                raise WeightsError(
                    f"{self.model.name} is not here either", hint=f"upx models pull {self.model.name} here, or there"
                )
            paths[each.sha256] = found.path
        return paths
