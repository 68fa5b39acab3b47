"""A host of the far soak, as a program of its own: one array through the library, on boxes, with upx's exit codes.

    python _far_host.py ORDER.json      what the order holds is written by ``_far_jobs``

Says what happens to its workers, in the words of ``upx up -v``.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np

from upx.cli._events import tell
from upx.config import Settings
from upx.errors import UpxError
from upx.host import Host
from upx.jobs import JobOptions
from upx.media.output_file import OutputFile
from upx.routes import Request
from upx.workers.plan import Timeouts


def main(path: str) -> int:
    order = json.loads(Path(path).read_text())
    request = Request(backend="nearest", scale=order["scale"], on=tuple(order["on"]), params={"delay": order["delay"]})
    try:
        with Host(Settings.from_env(), _say, timeouts=Timeouts(**order["timeouts"])) as host:
            with host.open(request) as session:
                result = session.run(np.load(order["input"]), None, JobOptions(tile=order["tile"]))
            with OutputFile(order["output"]) as file:
                file.write(_npy(np.asarray(result.output)))
                file.commit()
    except UpxError as error:
        print(f"upx: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _npy(array: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def _say(event: object) -> None:
    print(tell(event).words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
