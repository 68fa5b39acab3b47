"""Fetch one file in a process of its own: address, sha256, size, folder. Prints how many bytes are there."""

from __future__ import annotations

import sys
from pathlib import Path

from upx.assets.fetch import Network, Want, fetch
from upx.specs import UrlSource


def main(address: str, sha256: str, size: str, folder: str) -> None:
    taken = Path(folder) / "taken"
    got = fetch(
        Want("child", (UrlSource(address),), sha256, int(size)), Path(folder) / "parts", Network(backoff=0.01),
        present=taken.exists, take=lambda got: got.path.rename(taken),
        report=lambda progress: print(progress.state, progress.done, flush=True),
    )  # fmt: skip
    print("got" if got else "there", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
