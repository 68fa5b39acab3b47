"""Run parts of the bench: print a table of each, and write it as JSON and SVG below .cache/bench."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from pathlib import Path

from measure import OUT

PARTS = {
    "startup": "import and help",
    "encode": "PNG writer against Pillow",
    "envs": "environment builds, cold and warm",
    "runs": "first and second run of the command",
    "memory": "host memory at 1, 9 and 25 megapixels",
    "pull": "fetching against curl, tee and sha256sum",
    "hitsr": "HiT-SR on one thread, against a matrix product",
    "generative": "VARSR and TSD-SR in small sizes on one thread, against a matrix product",
    "transport": "tiles there and back against a memory copy and Appose",
    "nearest": "host and transport at a job with nearest, ring and socket",
    "isolation": "against a bare loop in one process",
}
# Run when they are named: minutes, and gigabytes of disk and memory.
LARGE = {
    "full": "TSD-SR and VARSR at full size: 10 minutes, 6 GB of disk, 16 GB of memory",
    "remote": "three boxes as network namespaces on shaped links: 8 minutes, as root",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all these without one; {', '.join(LARGE)}"
    )
    parser.add_argument("--list", action="store_true", help="name the parts")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:<10} {text}" for name, text in {**PARTS, **LARGE}.items()))
        return 0
    unknown = [name for name in arguments.parts if name not in {**PARTS, **LARGE}]
    if unknown:
        parser.error(f"no part is called {unknown[0]}; there are {', '.join({**PARTS, **LARGE})}")
    OUT.mkdir(parents=True, exist_ok=True)
    missed = sum(_part(name) for name in arguments.parts or PARTS)
    print(f"\n{missed} goals missed; figures in {OUT.relative_to(Path.cwd())}")
    return 1 if missed else 0


def _part(name: str) -> int:
    begin = time.monotonic()
    table = importlib.import_module(name).measure()
    print(table.text(), flush=True)
    facts = {
        "machine": platform.machine(), "system": platform.platform(), "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "took_s": round(time.monotonic() - begin, 1),
    }  # fmt: skip
    (OUT / f"{name}.json").write_text(json.dumps({**facts, **table.to_json()}, indent=1) + "\n")
    table.write_svg(OUT / f"{name}.svg")
    return table.missed


if __name__ == "__main__":
    sys.exit(main())
