"""Fetch one file in a process of its own. Arguments: address, sha256, size, folder. Prints seconds and peak memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from upx.assets.fetch import Network, Want, fetch
from upx.specs import UrlSource


def main(address: str, sha256: str, size: str, folder: str) -> None:
    want = Want("pull", (UrlSource(address),), sha256, int(size))
    target = Path(folder) / "pull.bin"
    begin = time.perf_counter()
    fetch(
        want, Path(folder) / "parts", Network(), present=lambda: False,
        take=lambda got: got.path.replace(target), report=lambda _progress: None,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
