"""A local server in a process of its own: prints its address, then one path a size in MB, until its input ends."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "kits"))

from fault_server import Content, FaultServer, Route


def main(sizes: list[str]) -> None:
    with FaultServer(fast=True) as server:
        for size in sizes:
            content = Content(int(size) * 1_000_000, seed=int(size))
            server.add(f"/{size}.bin", Route(content))
            print(server.url(f"/{size}.bin"), content.sha256, content.size, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
